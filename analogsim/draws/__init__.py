"""One fresh draw of the device, as a training forward sees it."""
