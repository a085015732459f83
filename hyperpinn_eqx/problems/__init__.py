from .base import AbstractODE as AbstractODE
from .base import AbstractPDE as AbstractPDE
from .burgers import Burgers as Burgers
from .lorenz import Lorenz as Lorenz
