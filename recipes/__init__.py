"""Recipes: runnable programs on top of analogsim, one readable file each."""

if __name__ == "recipes":  # a bare checkout on the path would hide a second copy of every class
    raise ImportError("import analogsim.recipes, not recipes")
