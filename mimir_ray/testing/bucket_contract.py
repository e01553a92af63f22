"""What every `Bucket` must do, as checks that the tests of each one run.

`@pytest.mark.parametrize("check", BUCKET_CHECKS, ids=lambda check: check.__name__)`, with an empty bucket and an empty
folder for each check.
"""

# ruff: noqa: ARG001  (every check takes a folder, few need it)

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from mimir_ray.bucket.store import Bucket, InvalidKey, ObjectNotFound, PrefixedBucket

Check = Callable[[Bucket, Path], None]


def _raises(kind: type[BaseException], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def what_was_put_is_read_back(bucket: Bucket, folder: Path) -> None:
    for key, data in (("a", b"one"), ("t/b", b""), ("t/deep/er/c.json", bytes(range(256)) * 40)):
        bucket.put(key, data)
        assert bucket.get(key) == data
        assert bucket.exists(key)
        info = bucket.info(key)
        assert (info.key, info.size) == (key, len(data))
        assert info.modified_ms >= 0


def the_last_put_counts(bucket: Bucket, folder: Path) -> None:
    for data in (b"first", b"second, longer", b"3rd"):
        bucket.put("t/k", data)
        assert bucket.get("t/k") == data
        assert [one.size for one in bucket.list_objects("t/")] == [len(data)]


def what_is_not_there_is_not_found(bucket: Bucket, folder: Path) -> None:
    bucket.put("t/x/y", b"1")
    for key in ("nothing", "t/nothing", "t", "t/x", "t/x/y/z", "t/x/yy"):
        assert not bucket.exists(key), key
        assert _raises(ObjectNotFound, lambda key=key: bucket.get(key)), key
        assert _raises(ObjectNotFound, lambda key=key: bucket.get_range(key, 0, 1)), key
        assert _raises(ObjectNotFound, lambda key=key: bucket.info(key)), key
        assert _raises(ObjectNotFound, lambda key=key: bucket.download(key, folder / "file")), key
    assert not list(folder.iterdir()), "a download that failed leaves nothing behind"


def ranges_are_exact_and_end_with_the_object(bucket: Bucket, folder: Path) -> None:
    data = bytes(range(100))
    bucket.put("t/k", data)
    for offset, length in ((0, 100), (0, 1), (99, 1), (10, 50), (90, 50), (0, 1000), (100, 1), (500, 3), (7, 0)):
        assert bucket.get_range("t/k", offset, length) == data[offset : offset + length], (offset, length)
    bucket.put("t/empty", b"")
    assert bucket.get_range("t/empty", 0, 10) == b""


def an_object_that_is_a_file_here_can_be_mapped(bucket: Bucket, folder: Path) -> None:
    bucket.put("t/x/k", b"some bytes")
    path = bucket.local_path("t/x/k")
    if path is not None:
        assert Path(path).read_bytes() == b"some bytes"
        for key in ("t/nothing", "t/x", "t/x/k/z"):
            assert _raises(ObjectNotFound, lambda key=key: bucket.local_path(key)), key
        for key in ("../k", "t//k", "/t"):
            assert _raises(InvalidKey, lambda key=key: bucket.local_path(key)), key
        bucket.put("t/x/k", b"others")
        assert Path(path).read_bytes() == b"others"
        bucket.delete("t/x/k")
        assert _raises(ObjectNotFound, lambda: bucket.local_path("t/x/k"))


def files_are_moved_whole(bucket: Bucket, folder: Path) -> None:
    for size in (0, 1, 70_000):
        source, target = folder / "source", folder / "new" / "target"
        source.write_bytes(bytes(n % 251 for n in range(size)))
        bucket.upload(source, "t/file")
        bucket.download("t/file", target)
        assert target.read_bytes() == source.read_bytes() == bucket.get("t/file")
        assert list(target.parent.iterdir()) == [target]


def listings_give_every_key_below_a_prefix_in_order(bucket: Bucket, folder: Path) -> None:
    keys = ["a", "t-1/x", "t/a", "t/a-b/c", "t/a/b", "t/a.b", "t/ä/1", "t2/a"] if _nests(bucket) else []
    keys = keys or ["a", "t-1/x", "t/a-b/c", "t/a.b", "t/aa/b", "t/b/c/d", "t/ä/1", "t2/a"]
    for key in keys:
        bucket.put(key, key.encode())
    assert [one.key for one in bucket.list_objects()] == sorted(keys)
    assert [one.key for one in bucket.list_objects("t/")] == sorted(key for key in keys if key.startswith("t/"))
    assert [(one.key, one.size) for one in bucket.list_objects("t/ä/")] == [("t/ä/1", len("t/ä/1".encode()))]
    assert list(bucket.list_objects("none/")) == []
    assert list(bucket.list_objects("a/")) == []


def _nests(bucket: Bucket) -> bool:
    """Whether an object may have a key that is a folder of another: not on a disk."""
    bucket.put("nest", b"")
    try:
        bucket.put("nest/ed", b"")
    except Exception:  # noqa: BLE001  (that is the question)
        return False
    finally:
        bucket.delete("nest/ed")
        bucket.delete("nest")
    return True


def folders_are_listed_one_level_deep(bucket: Bucket, folder: Path) -> None:
    for key in ("top", "t/x/1", "t/x/2", "t/y/z/3", "t/file", "u/1"):
        bucket.put(key, b"")
    assert bucket.list_folders() == ["t", "u"]
    assert bucket.list_folders("t/") == ["x", "y"]
    assert bucket.list_folders("t/y/") == ["z"]
    assert bucket.list_folders("t/x/") == []
    assert bucket.list_folders("none/") == []
    assert bucket.list_folders("top/") == []


def what_was_deleted_is_gone_and_its_folder_too(bucket: Bucket, folder: Path) -> None:
    for key in ("t/x/1", "t/x/2", "u/1"):
        bucket.put(key, b"")
    bucket.delete("t/x/1")
    bucket.delete("t/x/1")
    bucket.delete("none/at/all")
    assert not bucket.exists("t/x/1") and bucket.exists("t/x/2")
    bucket.delete("t/x/2")
    assert bucket.list_folders() == ["u"]
    assert [one.key for one in bucket.list_objects()] == ["u/1"]


def keys_that_lead_elsewhere_are_refused(bucket: Bucket, folder: Path) -> None:
    for key in ("", "/", "/a", "a/", "a//b", "..", "../a", "t/../u/1", "t/./a", "a\0b", "x" * 1025):
        for call in (bucket.get, bucket.exists, bucket.info, bucket.delete):
            assert _raises(InvalidKey, lambda call=call, key=key: call(key)), key
        assert _raises(InvalidKey, lambda key=key: bucket.put(key, b"")), key
        assert _raises(InvalidKey, lambda key=key: bucket.get_range(key, 0, 1)), key
        assert _raises(InvalidKey, lambda key=key: bucket.upload(folder, key)), key
        assert _raises(InvalidKey, lambda key=key: bucket.download(key, folder / "x")), key
    for prefix in ("t", "/", "../", "t//", "t/../u/", "/t/"):
        assert _raises(InvalidKey, lambda prefix=prefix: bucket.list_folders(prefix)), prefix
        assert _raises(InvalidKey, lambda prefix=prefix: list(bucket.list_objects(prefix))), prefix


def tenants_do_not_see_each_other(bucket: Bucket, folder: Path) -> None:
    one, other = PrefixedBucket(bucket, "team/"), PrefixedBucket(bucket, "team-2/")
    one.put("x/k", b"one")
    other.put("x/k", b"other")
    other.put("y/k", b"")
    assert (one.get("x/k"), other.get("x/k")) == (b"one", b"other")
    assert [found.key for found in one.list_objects()] == ["x/k"]
    assert (one.list_folders(), other.list_folders()) == (["x"], ["x", "y"])
    assert one.info("x/k").key == "x/k"
    assert _raises(InvalidKey, lambda: one.get("../team-2/x/k"))
    one.delete("x/k")
    assert not one.exists("x/k") and other.exists("x/k")


def readers_see_one_whole_version_while_others_write(bucket: Bucket, folder: Path) -> None:
    versions = [bytes([n]) * (1000 + n) for n in range(8)]
    bucket.put("t/k", versions[0])
    wrong: list[object] = []

    def write(own: bytes) -> None:
        for _ in range(3):
            bucket.put("t/k", own)

    def read() -> None:
        for _ in range(8):
            try:
                if (found := bucket.get("t/k")) not in versions:
                    wrong.append(found)
            except Exception as error:  # noqa: BLE001  (it ends in the assertion)
                wrong.append(error)

    threads = [threading.Thread(target=write, args=(own,)) for own in versions[1:5]]
    threads += [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert bucket.get("t/k") in versions


BUCKET_CHECKS: tuple[Check, ...] = (
    what_was_put_is_read_back,
    the_last_put_counts,
    what_is_not_there_is_not_found,
    ranges_are_exact_and_end_with_the_object,
    an_object_that_is_a_file_here_can_be_mapped,
    files_are_moved_whole,
    listings_give_every_key_below_a_prefix_in_order,
    folders_are_listed_one_level_deep,
    what_was_deleted_is_gone_and_its_folder_too,
    keys_that_lead_elsewhere_are_refused,
    tenants_do_not_see_each_other,
    readers_see_one_whole_version_while_others_write,
)
