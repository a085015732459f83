"""Families of equations, one a file."""

from .allen_cahn import AllenCahn as AllenCahn
from .base import AbstractODE as AbstractODE
from .base import AbstractPDE as AbstractPDE
from .burgers import Burgers as Burgers
from .burgers_wave import BurgersWave as BurgersWave
from .klein_gordon import KleinGordon as KleinGordon
from .korteweg_de_vries import KortewegDeVries as KortewegDeVries
from .kovasznay import Kovasznay as Kovasznay
from .lorenz import Lorenz as Lorenz
from .manufactured import Manufactured as Manufactured
from .plume import Plume as Plume
from .poisson import Poisson as Poisson
from .rod import Rod as Rod
from .schroedinger import Schroedinger as Schroedinger
from .transport import Transport as Transport
from .wave import Wave as Wave
