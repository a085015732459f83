"""The experiments as plain data, and the one function that runs any of them."""

from .burgers import BurgersExperiment as BurgersExperiment
from .families import FAMILIES as FAMILIES
from .families import FamilyExperiment as FamilyExperiment
from .families import held_out_error as held_out_error
from .lorenz import SCHEME as SCHEME
from .lorenz import LorenzExperiment as LorenzExperiment
from .lorenz import test_set as test_set
from .lorenz import training_set as training_set
from .stages import Adam as Adam
from .stages import Continuation as Continuation
from .stages import GaussNewton as GaussNewton
from .stages import MultistepAdam as MultistepAdam
from .stages import MultistepGaussNewton as MultistepGaussNewton
from .train import EXPERIMENTS as EXPERIMENTS
from .train import RECIPES as RECIPES
from .train import file_stem as file_stem
from .train import parameter_counts as parameter_counts
from .train import train as train
