"""Drives the Redis front with the Python client `redis`: `redis_client.py PORT`.

Called by `cargo xtask external`. Every check is an assertion that says what it expected.
"""

import sys
import threading
import time

import redis


def expect(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def expect_error(text, call):
    try:
        call()
    except redis.ResponseError as error:
        assert text in str(error), f"{error} does not say {text!r}"
    else:
        raise AssertionError(f"no error that says {text!r}")


def strings(r):
    r.flushall()
    expect(r.set("greeting", "hello"), True)
    expect(r.get("greeting"), b"hello")
    expect(r.get("absent"), None)
    expect(r.set("greeting", "other", nx=True), None)
    expect(r.set("greeting", "other", xx=True, get=True), b"hello")
    expect(r.append("greeting", "!"), 6)
    expect(r.strlen("greeting"), 6)
    expect(r.getdel("greeting"), b"other!")
    expect(r.mset({"a": 1, "b": 2}), True)
    expect(r.mget("a", "b", "c"), [b"1", b"2", None])
    expect(r.incr("n", 5), 5)
    expect(r.decr("n", 2), 3)
    expect(r.delete("a", "b", "c"), 2)
    expect(r.exists("n", "n"), 2)
    blob = bytes(range(256)) * 16
    r.set(blob[:64], blob)
    expect(r.get(blob[:64]), blob)
    expect(r.type("n"), b"string" if isinstance(r.type("n"), bytes) else "string")


def errors(r):
    r.set("text", "x")
    expect_error("value is not an integer", lambda: r.incr("text"))
    expect_error("unknown command", lambda: r.lpush("list", 1))
    expect_error("wrong number of arguments", lambda: r.execute_command("GET"))


def expiry(r):
    r.set("short", "x", px=200)
    r.set("long", "x", ex=100)
    assert 0 < r.pttl("short") <= 200
    expect(r.ttl("long"), 100)
    expect(r.persist("long"), True)
    expect(r.ttl("long"), -1)
    deadline = time.monotonic() + 10
    # Ordered time moves with ordered operations, so asking is enough to see it pass.
    while r.exists("short"):
        assert time.monotonic() < deadline, "the key with 200 ms to live is still there after 10 s"
        time.sleep(0.05)


def scanning(r):
    r.flushall()
    names = {f"item:{i}".encode() for i in range(500)}
    with r.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.set(name, 1)
        pipe.execute()
    r.set("other", 1)
    expect(set(r.scan_iter(match="item:*", count=50)), names)
    expect(set(r.keys("item:*")), names)
    expect(r.dbsize(), 501)


def transactions(r):
    r.flushall()
    with r.pipeline(transaction=True) as pipe:
        pipe.set("a", 1).incr("a").get("a")
        expect(pipe.execute(), [True, 2, b"2"])
    with r.pipeline() as pipe:
        pipe.watch("a")
        r.set("a", 10)
        pipe.multi()
        pipe.set("a", 11)
        try:
            pipe.execute()
        except redis.WatchError:
            pass
        else:
            raise AssertionError("a transaction ran although a watched key had changed")
    expect(r.get("a"), b"10")


def concurrent_increments(port, protocol):
    """Eight clients increment one key: every increment counts exactly once."""
    seen = []

    def work():
        with redis.Redis(port=port, protocol=protocol) as mine:
            seen.extend(mine.incr("counter") for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(sorted(seen), list(range(1, 801)))


def optimistic_transfers(r, port):
    """Clients move units between two keys by WATCH: the sum never changes."""
    r.mset({"left": 100, "right": 100})

    def work():
        with redis.Redis(port=port) as mine:
            for _ in range(10):
                while True:
                    with mine.pipeline() as pipe:
                        try:
                            pipe.watch("left", "right")
                            left, right = int(pipe.get("left")), int(pipe.get("right"))
                            pipe.multi()
                            pipe.set("left", left - 1).set("right", right + 1)
                            pipe.execute()
                            break
                        except redis.WatchError:
                            continue

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect([int(value) for value in r.mget("left", "right")], [70, 130])


def main():
    port = int(sys.argv[1])
    for protocol in (2, 3):
        with redis.Redis(port=port, protocol=protocol) as r:
            expect(r.ping(), True)
            for check in (strings, errors, expiry, scanning, transactions):
                check(r)
            r.delete("counter")
            concurrent_increments(port, protocol)
            optimistic_transfers(r, port)
        print(f"external: Python client {redis.__version__}, RESP{protocol}: ok")


if __name__ == "__main__":
    main()
