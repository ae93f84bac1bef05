"""What an example's key is folded with: a number of its own for each augmentation.

Its draws are then independent of those of the others, and of which others run.
"""

(
    DROPOUT,  # of the model, which folds in 0 itself
    PAD_AND_CROP,
    FLIP,
    JITTER,
    LIGHTING,
    IS_JITTERED,
    RANDOM_GREY,
    SOLARIZE,
    BLUR,
    RANDOM_RESIZED_CROP,
    ERASE,
    POLICY,
    VIEW,
) = range(13)
