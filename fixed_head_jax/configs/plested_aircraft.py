"""Non-binary transfer of ImageNet to FGVC Aircraft, 100 variants (Plested et al. 2021).

    python main.py --config=configs/plested_aircraft.py --workdir=runs/aircraft \\
        --config.data_dir=DIR --config.init_from=inception_v4.tf_in1k.safetensors
    python main.py --config=configs/plested_aircraft.py --sweep ...
    python main.py --config=configs/plested_aircraft.py --mode=search --budget=40 ...

Trained on the 6,667 images of training and validation, tested on 3,333; tuned (`tune`, `search`)
on the validation images. Pre-trained features do not fit: training from scratch is 28.9 points
better than frozen ones (reported second-hand), L2-SP hurts, and new layers (1 is best alone:
`reinit` is `default`) pay together with rates by depth. The rate of 0.025 is second-hand.
Published top-1 %, read off the paper's figure (the settings behind it are not published, those here
are assumed, see plested_common.py): default 93.78, reinit 93.78, split_lr 94.31, reinit_split_lr
94.50, l2sp 93.29, mixed_reg_k1 93.86, mixed_reg 94.23, ensemble 95.11. Not measured here: neither
images nor weights are at hand.

Variants: a row's name (`default`), `optimal` (the best row), `tune`, `as_published`.
"""

from functools import partial

from fixed_head_jax.configs import plested_common

EXPERIMENT = plested_common.Experiment(
    data="fgvc_aircraft",
    final_split="train+validation",
    lr=0.025,
    new_layers={"reinit": 1, "reinit_split_lr": 2, "mixed_reg": 2},
    optimal="reinit_split_lr",
    statistics=((0.4893, 0.5184, 0.5388), (0.2239, 0.2164, 0.2462)),
    published={
        "default": 93.78,
        "reinit": 93.78,
        "split_lr": 94.31,
        "reinit_split_lr": 94.5,
        "l2sp": 93.29,
        "mixed_reg_k1": 93.86,
        "mixed_reg": 94.23,
        "ensemble": 95.11,
    },
)

get_config = partial(plested_common.get_config, EXPERIMENT)
get_sweep = partial(plested_common.get_sweep, EXPERIMENT)  # the rows of the figure
get_search = partial(plested_common.get_search, EXPERIMENT)
