from workflows.api import Config as Config
from workflows.api import Run as Run
from workflows.api import evaluate as evaluate
from workflows.api import load_config as load_config
from workflows.api import train as train
