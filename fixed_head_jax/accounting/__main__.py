"""Prints what every model stores and computes, and the published tables next to ours."""

import jax

from fixed_head_jax.accounting.tables import cost_table, operations_table, savings_table
from fixed_head_jax.settings.command_line import Parser


def main(arguments: list[str] | None = None) -> None:
    """Prints every backbone with every head, then the published tables next to ours."""
    parser = Parser("python -m fixed_head_jax.accounting", description=__doc__)
    parser.add_argument("--table", action="store_true", required=True, help="print the tables")
    parser.add_argument("--classes", type=int, default=1000, help="K, at least 2")
    parser.add_argument("--image_size", type=int, default=224, help="pixels, at least 1")
    options = parser.parse_args(arguments)
    if options.classes < 2 or options.image_size < 1:
        parser.error(
            "--classes must be at least 2 and --image_size at least 1, got "
            f"{options.classes} and {options.image_size}"
        )
    print(f"{options.classes} classes, one image of {options.image_size} pixels\n")
    print(cost_table(options.classes, options.image_size))
    print("Parameters saved by an identity head (Qian 2020, Table 5.5)\n")
    print(savings_table())
    print("Operations at 224 pixels by the rule of Qian 2020, Table 6.1\n")
    print(operations_table(), end="")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # nothing is run: leave an accelerator alone
    main()
