"""Files: hashes, atomic writes, sparse copies."""

from pathlib import Path

from omamori_firmware.files import copy_file, copy_sparse, copy_tree, sha256_tree


def test_a_hash_sees_names_modes_links_and_content(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "a").write_text("1")
    seen = {sha256_tree([top])}
    (top / "sub" / "a").chmod(0o755)
    seen.add(sha256_tree([top]))
    (top / "sub" / "a").rename(top / "sub" / "b")
    seen.add(sha256_tree([top]))
    (top / "link").symlink_to("sub")
    seen.add(sha256_tree([top]))
    assert len(seen) == 4
    (top / "__pycache__").mkdir()
    (top / "__pycache__" / "x.pyc").write_text("x")
    assert sha256_tree([top]) in seen


def test_an_absent_source_counts_as_absent(tmp_path: Path) -> None:
    assert sha256_tree([tmp_path / "none"]) != sha256_tree([])


def test_holes_stay_holes_and_neighbours_stay(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    with source.open("wb") as stream:
        stream.write(b"begin")
        stream.seek(8 << 20)
        stream.write(b"end")
        stream.truncate(16 << 20)
    target.write_bytes(b"x" * 4096)
    copy_sparse(source, target, offset=4096)
    data = target.read_bytes()
    assert data[:4096] == b"x" * 4096
    assert data[4096:] == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20


def test_modes_do_not_depend_on_the_builders_umask(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir(mode=0o700)
    (source / "run").write_text("#!")
    (source / "run").chmod(0o700)
    (source / "data").write_text("x")
    (source / "data").chmod(0o600)
    (source / "link").symlink_to("data")
    (source / "__pycache__").mkdir()
    copy_tree(source, tmp_path / "t")
    modes = {path.name: path.lstat().st_mode & 0o777 for path in (tmp_path / "t").iterdir()}
    assert modes == {"run": 0o755, "data": 0o644, "link": 0o777}
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o755
    copy_tree(tmp_path / "absent", tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_copied_file_replaces_a_link(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("new")
    (tmp_path / "victim").write_text("old")
    (tmp_path / "t").symlink_to("victim")
    copy_file(tmp_path / "s", tmp_path / "t")
    assert (tmp_path / "victim").read_text() == "old"
    assert (tmp_path / "t").read_text() == "new"
