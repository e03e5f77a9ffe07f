"""``python -m analogsim``: the command line of the recipes."""

from analogsim.recipes.cli import main

if __name__ == "__main__":
    main()
