"""implicit3dmm models: the models that travel with the package."""

from implicit3dmm.cli.common import first_paragraph


def models() -> int:
    """Lists the released models with their sizes, training data and licences."""
    from implicit3dmm.mesh_models.model import is_network_file, load_network
    from implicit3dmm.models import load_model, released_models, training_heads

    for name, path in released_models().items():
        if is_network_file(path):
            model = load_network(path)
            kind, codes = type(model.network).__name__, f"{model.network.latent_dim}, of registered heads"
        else:
            model = load_model(path)
            kind = type(model.field).__name__
            codes = ", ".join(f"{spec.name} {spec.dim}" for spec in model.field.latent_specs)
        print(f"{name}: {kind}, codes {codes}, {path.stat().st_size / 1e6:.1f} MB")
        print(f"  trained on {training_heads(model.info)}")
        print(f"  {first_paragraph(model.info['licence'])}")
    return 0
