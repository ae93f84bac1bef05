"""Non-binary transfer of ImageNet to Stanford Cars (Plested, Shen & Gedeon 2021).

    python main.py --config=configs/plested_cars.py --workdir=runs/cars \\
        --config.data_dir=DIR --config.init_from=inception_v4.tf_in1k.safetensors
    python main.py --config=configs/plested_cars.py --sweep ...
    python main.py --config=configs/plested_cars.py --mode=search --budget=40 ...

Trained on the 8,144 official training images, tested on the 8,041 test images, tuned (`tune`,
`search`) on 11 training images of each class, held out. Pre-trained features do not fit: training
from scratch is 28.5 points better than frozen ones (reported second-hand), L2-SP hurts, and the
best number of new layers was 1 (`reinit` is `default`, `reinit_split_lr` is `split_lr`).
Published top-1 %, read off the paper's figure (the settings behind it are not published, those here
are assumed, see plested_common.py): default 94.59, reinit 94.59, split_lr 94.85, reinit_split_lr
94.85, l2sp 94.40, mixed_reg_k1 94.56, mixed_reg 94.67, ensemble 95.38. Not measured here: neither
images nor weights are at hand.

Variants: a row's name (`default`), `optimal` (the best row), `tune`, `as_published`.
"""

from functools import partial

from fixed_head_jax.configs import plested_common

EXPERIMENT = plested_common.Experiment(
    data="stanford_cars",
    final_split="train+validation",
    lr=0.03,
    new_layers={"reinit": 1, "reinit_split_lr": 1, "mixed_reg": 2},
    optimal="split_lr",
    published={
        "default": 94.59,
        "reinit": 94.59,
        "split_lr": 94.85,
        "reinit_split_lr": 94.85,
        "l2sp": 94.4,
        "mixed_reg_k1": 94.56,
        "mixed_reg": 94.67,
        "ensemble": 95.38,
    },
)

get_config = partial(plested_common.get_config, EXPERIMENT)
get_sweep = partial(plested_common.get_sweep, EXPERIMENT)  # the rows of the figure
get_search = partial(plested_common.get_search, EXPERIMENT)
