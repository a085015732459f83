"""Families of equations, one a file."""

from .allen_cahn import AllenCahn as AllenCahn
from .base import AbstractODE as AbstractODE
from .base import AbstractPDE as AbstractPDE
from .burgers import Burgers as Burgers
from .burgers_wave import BurgersWave as BurgersWave
from .lorenz import Lorenz as Lorenz
from .manufactured import Manufactured as Manufactured
from .plume import Plume as Plume
from .transport import Transport as Transport
