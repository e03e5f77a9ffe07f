"""An Optuna study that many workers share, and its copy in MLflow."""
