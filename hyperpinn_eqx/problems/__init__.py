from .base import AbstractPDE as AbstractPDE
from .burgers import Burgers as Burgers
