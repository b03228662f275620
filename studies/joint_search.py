"""What can the baseline reach with learning rate, batch size, width and initial weights together?

python -m harness.study joint_search
"""

from experiments.baseline import Baseline
from harness.search import CategoricalDistribution, FloatDistribution, IntDistribution, Study

study = Study(
    experiment=Baseline(),
    space={
        "lr": FloatDistribution(1e-2, 1.0, log=True),
        "batch_size": CategoricalDistribution([32, 64, 128, 256, 512]),
        "hidden_width": IntDistribution(64, 1024, log=True),
        "init_std": FloatDistribution(1e-3, 1.0, log=True),
    },
    n_trials=60,
)
