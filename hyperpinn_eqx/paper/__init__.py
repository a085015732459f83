"""The paper's experiments as plain data, how each is run, and how it is measured."""

from ..recipes.stages import Adam as Adam
from ..recipes.stages import Continuation as Continuation
from ..recipes.stages import GaussNewton as GaussNewton
from ..recipes.stages import MultistepAdam as MultistepAdam
from ..recipes.stages import MultistepGaussNewton as MultistepGaussNewton
from .behaviours import BEHAVIOURS as BEHAVIOURS
from .behaviours import classify as classify
from .behaviours import confusion as confusion
from .burgers import BurgersExperiment as BurgersExperiment
from .evaluate import report as report
from .families import FAMILIES as FAMILIES
from .families import FamilyExperiment as FamilyExperiment
from .families import held_out_error as held_out_error
from .lorenz import LorenzExperiment as LorenzExperiment
from .lorenz_data import SCHEME as SCHEME
from .lorenz_data import test_set as test_set
from .lorenz_data import training_set as training_set
from .lorenz_data import true_run as true_run
from .lorenz_measures import LorenzRow as LorenzRow
from .lorenz_measures import WithBias as WithBias
from .lorenz_measures import WithoutBias as WithoutBias
from .recognise import recognise as recognise
from .train import EXPERIMENTS as EXPERIMENTS
from .train import RECIPES as RECIPES
from .train import parameter_counts as parameter_counts
from .train import train as train
