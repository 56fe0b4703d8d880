import threading

from bahe_tasks.stores.file_lock import one_at_a_time


def test_who_finds_the_lock_taken_says_so_and_waits(tmp_path, caplog):
    lock, inside = tmp_path / "folder" / "lock", threading.Event()

    def second():
        with one_at_a_time(lock, waiting="another one is at it"):
            inside.set()

    with one_at_a_time(lock, waiting="never said"):
        other = threading.Thread(target=second)
        other.start()
        assert not inside.wait(0.3)
        assert caplog.messages == ["another one is at it"]
    other.join(10)
    assert inside.is_set()
