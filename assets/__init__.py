"""What the package ships beside its code: the head template, released models and an example scan."""
