"""What `implicit3dmm pca` makes and refuses."""

from implicit3dmm.mesh_models.pca import is_pca_file, load_pca


def test_a_corpus_becomes_a_model(command, tiny_corpus, tmp_path):
    out = tmp_path / "linear.safetensors"
    result = command("pca", tiny_corpus.folder, "--components", 4, "--out", out)
    assert (result.code, result.err) == (0, "")
    assert "4 components of 6 heads" in result.out
    assert "CC0" in result.out
    assert is_pca_file(out)
    model = load_pca(out)
    assert model.name == "linear"
    assert len(model.deviations) == 4
    assert model.info["gate"].startswith("registered projection of 1 validation heads: ")
    assert model.info["gate"] in result.out


def test_more_components_than_heads_are_refused(command, tiny_corpus, tmp_path, assert_refused):
    out = tmp_path / "linear.safetensors"
    result = command("pca", tiny_corpus.folder, "--components", 6, "--out", out)
    assert_refused(result, "6 components asked of 6 train heads")
    assert not out.exists()


def test_another_suffix_is_refused(command, tiny_corpus, tmp_path, assert_refused):
    result = command("pca", tiny_corpus.folder, "--components", 4, "--out", tmp_path / "linear.npz")
    assert_refused(result, "ends in .safetensors was expected")


def test_what_is_no_corpus_is_refused(command, tmp_path, assert_refused):
    result = command("pca", tmp_path / "none", "--out", tmp_path / "linear.safetensors")
    assert_refused(result, "holds no finished corpus")
