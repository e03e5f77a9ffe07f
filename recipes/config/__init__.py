"""What a recipe is told: options, files, the command line, search spaces."""
