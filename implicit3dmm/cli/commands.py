"""All sub-commands by name."""

from implicit3dmm.cli.corpus import corpus
from implicit3dmm.cli.demo import demo
from implicit3dmm.cli.edit import edit
from implicit3dmm.cli.evaluate import evaluate
from implicit3dmm.cli.extract import extract
from implicit3dmm.cli.fit import fit
from implicit3dmm.cli.models import models
from implicit3dmm.cli.pca import pca
from implicit3dmm.cli.register import register
from implicit3dmm.cli.sample import sample
from implicit3dmm.cli.train import train

COMMANDS = {
    "fit": fit,
    "demo": demo,
    "extract": extract,
    "sample": sample,
    "register": register,
    "edit": edit,
    "corpus": corpus,
    "train": train,
    "pca": pca,
    "evaluate": evaluate,
    "models": models,
}
