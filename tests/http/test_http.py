"""What clients see of HTTP itself: methods, media types, JSON, limits, connections, and 503."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from scripts.throwaway import ROOT
from tests.shared.api import PREFIX, Api, b64u, header, unb64u
from tests.shared.bodies import body_of
from tests.shared.waiting import ANSWER, LONGEST_ANSWER

LIMIT = 2 * 1024 * 1024
MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
POSTS = ("/keys", "/keys/unwrap", "/encrypt", "/decrypt", "/sign", "/verify", "/mac")
UNKNOWN_KID = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"

every_post = pytest.mark.parametrize("path", POSTS)


# --- Sockets ---


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*address(url), timeout=ANSWER.seconds)


def refusal_of(response: http.client.HTTPResponse) -> tuple[int, str]:
    """Return status and code of an answer that must be our JSON."""
    body = response.read()
    assert response.headers["Content-Type"] == "application/json", body
    members = json.loads(body)
    assert set(members) == {"error", "description"}
    return response.status, members["error"]


@contextmanager
def answer_on(channel: socket.socket) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPResponse(channel)) as response:
        response.begin()
        yield response


def exchange(url: str, request: bytes, body: bytes = b"") -> tuple[int, str]:
    """Send bytes on a connection of their own; return status and code of the JSON answer.

    A server may answer and close before it has read everything: the answer must still arrive.
    """
    with closing(socket.create_connection(address(url), timeout=ANSWER.seconds)) as channel:
        with suppress(BrokenPipeError, ConnectionResetError):
            channel.sendall(request + body)
        with answer_on(channel) as response:
            return refusal_of(response)


def api_of(url: str) -> Api:
    """Return the service at ``url``, called on a new connection each time."""

    def send(method: str, path: str, **arguments: Any) -> requests.Response:
        return requests.request(method, url + path, timeout=LONGEST_ANSWER.seconds, **arguments)

    return Api(send)


def head_of(path: str, **fields: str) -> bytes:
    lines = [f"POST {PREFIX}{path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(body: bytes, size: int = 65_536) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def framed(path: str, body: bytes, framing: str) -> tuple[bytes, bytes]:
    if framing == "chunked":
        return head_of(path, Transfer_Encoding="chunked"), chunked(body)
    return head_of(path, Content_Length=str(len(body))), body


def padded(members: Mapping[str, Any], size: int) -> bytes:
    """Return ``members`` as JSON of exactly ``size`` bytes, with an unknown member."""
    empty = json.dumps({**members, "padding": ""}).encode()
    return json.dumps({**members, "padding": "x" * (size - len(empty))}).encode()


@pytest.fixture(scope="module")
def mac_body(live: Api) -> dict[str, str]:
    return {"kid": live.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": "AAAA"}


# --- methods and paths ---


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
@every_post
def test_another_method_is_refused_with_those_allowed(live: Api, path: str, method: str) -> None:
    if (path, method) == ("/keys", "GET"):  # the list
        return
    if path == "/keys/unwrap" and method in ("GET", "PATCH", "DELETE"):  # /keys/{kid}
        answer = live.request(method, path, json={})
        assert answer.refusal == (404, "not_found")
        return
    answer = live.request(method, path)
    assert answer.refusal == (405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) >= {"POST"}
    assert method not in answer.headers["Allow"].split(", ")


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
def test_a_key_is_read_changed_and_deleted_only(live: Api, method: str) -> None:
    answer = live.request(method, f"/keys/{UNKNOWN_KID}")
    assert answer.refusal == (405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE"}


@pytest.mark.parametrize("path", [*POSTS, f"/keys/{UNKNOWN_KID}"])
def test_head_is_answered_without_a_body(server: str, path: str) -> None:
    # /keys is a list, and everything below it is a kid that there may be.
    status = {"/keys": 200}.get(path, 404 if path.startswith("/keys/") else 405)
    with requests.head(f"{server}{PREFIX}{path}", timeout=ANSWER.seconds) as response:
        assert response.status_code == status
        assert response.headers["Content-Type"] == "application/json"
        assert "HEAD" not in response.headers.get("Allow", "")
        assert response.content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/crypto",
        "/v1/crypto/",
        "/v1/crypto/unknown",
        "/v1/crypto/KEYS",
        "/v2/crypto/keys",
        "/v1//crypto/sign",
        "/v1/crypto//sign",
        "/V1/crypto/sign",
        "/crypto/sign",
        "/static/x",
        "/favicon.ico",
        "/metrics/%00",
        "/%FF",
        "/v1/crypto/sign%2F",
        *(f"{PREFIX}{path}/" for path in POSTS if not path.startswith("/keys")),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_not_found(server: str, path: str, method: str) -> None:
    with closing(connection(server)) as client:
        client.request(method, path, body=b"{}", headers=JSON)
        assert refusal_of(client.getresponse()) == (404, "not_found")


@pytest.mark.parametrize("path", ["/unknown", "/v1/crypto/sign/", "/v1/crypto/keys/a/b", "//"])
def test_a_path_that_does_not_exist_is_told_from_a_key(server: str, path: str) -> None:
    with closing(connection(server)) as client:
        for address_, text in ((path, "No such path"), (f"{PREFIX}/keys/a", "Key not found")):
            client.request("GET", address_)
            body = client.getresponse().read()
            assert json.loads(body) == {"error": "not_found", "description": text}


LINKS = ("api", "capabilities", "jwks", "openapi", "ready", "docs")
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html;q=0.5, */*"])
def test_programs_are_told_where_to_begin(server: str, accept: str | None) -> None:
    answer = requests.get(
        server, headers={"Accept": accept} if accept else {}, timeout=ANSWER.seconds
    )
    assert (answer.status_code, tuple(answer.json())) == (200, LINKS)
    for path in answer.json().values():
        expected = 404 if path == PREFIX else 200
        assert requests.get(server + path, timeout=ANSWER.seconds).status_code == expected


@pytest.mark.parametrize("target", ["/", "http://localhost", "http://localhost?x", "http://a/"])
def test_the_beginning_is_the_same_however_it_is_asked_for(server: str, target: str) -> None:
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, _, members = read_answer(channel)
        assert (status, tuple(members)) == (200, LINKS)


@pytest.mark.parametrize("accept", ["text/html", BROWSER])
def test_browsers_are_sent_to_the_page(server: str, accept: str) -> None:
    headers = {"Accept": accept}
    answer = requests.get(server, headers=headers, timeout=ANSWER.seconds, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")
    assert answer.headers["Vary"] == "Accept"


def test_without_the_page_browsers_are_told_where_to_begin(serve: Any, environment: Any) -> None:
    none = {"JOSE_HSM_PAGES": "0", "JOSE_HSM_ADMIN_PAGE": "0"}
    with serve(environment | none, workers=1) as url:
        answer = requests.get(url, headers={"Accept": BROWSER}, timeout=ANSWER.seconds)
    assert (answer.status_code, tuple(answer.json())) == (200, LINKS[:-1])


@pytest.mark.parametrize(
    "headers",
    [
        {"Script_Name": "/x"},
        {"SCRIPT_NAME": "/v1"},
        {"Script-Name": "/v1"},
        {"PATH_INFO": "/unknown"},
        {"REMOTE_USER": "root"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"},
        {"X-Forwarded-Protocol": "ssl", "X-Forwarded-Proto": "http"},
    ],
    ids=str,
)
def test_no_header_of_a_client_is_a_variable_of_the_server(server, headers) -> None:
    answer = requests.get(f"{server}{PREFIX}/keys", headers=headers, timeout=ANSWER.seconds)
    assert answer.status_code == 200


def test_nothing_has_no_type(live: Api) -> None:
    answer = live.delete(live.create(kty="oct", alg="HS256")["kid"])
    assert answer.status == 204
    assert not {"Content-Type", "Content-Length", "Transfer-Encoding"} & set(answer.headers)


@pytest.mark.parametrize("given", ["q=;", "bytes=0-1", "bytes=999999999-", "bytes=x"])
@pytest.mark.parametrize("path", ["/docs", "/docs/docs.js", "/openapi.json"])
def test_a_file_is_sent_whole_whatever_range_is_asked_for(server, path, given) -> None:
    whole = requests.get(server + path, timeout=ANSWER.seconds)
    answer = requests.get(server + path, headers={"Range": given}, timeout=ANSWER.seconds)
    assert (answer.status_code, answer.content) == (200, whole.content)
    assert answer.headers.get("Accept-Ranges", "none") == "none"


DOCUMENTS = ("/.well-known/jwks.json", "/openapi.json", "/openapi-strict.json", "/docs")


@pytest.mark.parametrize("given", ["*", '"another"', 'W/"another"', None])
@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_is_sent_whatever_a_client_wants_it_to_match(server, path, given) -> None:
    whole = requests.get(server + path, timeout=ANSWER.seconds)
    tag = whole.headers["ETag"]
    answer = requests.get(server + path, headers={"If-Match": given or tag}, timeout=ANSWER.seconds)
    assert (answer.status_code, answer.headers["ETag"]) == (200, tag)
    both = {"If-Match": given or tag, "If-None-Match": f'"other", {tag}'}
    known = requests.get(server + path, headers=both, timeout=ANSWER.seconds)
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize("path", ["//v1/crypto/sign", "///v1/crypto/sign"])
def test_a_path_with_more_slashes_is_another_path(server: str, path: str) -> None:
    with closing(connection(server)) as client:
        client.request("POST", path, body=b"{}", headers=JSON)
        assert refusal_of(client.getresponse()) == (404, "not_found")


@pytest.mark.parametrize(
    "kid",
    [
        "..%2F..%2Fencrypt",
        "%2e%2e",
        "..",
        "../encrypt",
        "a%2Fb",
        "%2Fa",
        "%2F",
        "a/b/c",
        "//",
        "%00",
        "%0A",
        "%FF%FE",
        "%C3%A9",
        "%",
        "%zz",
        "%25",
        "a;b",
        "a?b=c",
        "",
        "k" * 3000,
        "%27" * 1000,
        UNKNOWN_KID + "%2F",
        UNKNOWN_KID + "/",
        UNKNOWN_KID + "%00",
    ],
    ids=lambda kid: kid[:20] or "empty",
)
def test_an_odd_path_deletes_nothing(server: str, kid: str) -> None:
    with closing(connection(server)) as client:
        client.request("DELETE", f"{PREFIX}/keys/{kid}")
        assert refusal_of(client.getresponse()) == (404, "not_found")


def test_a_kid_with_a_slash_or_another_spelling_does_not_delete_the_key(server, live) -> None:
    kid = live.create(kty="oct", alg="HS256")["kid"]
    for spelling in (f"{kid}%2F", f"{kid}/", f"x%2F..%2F{kid}", f"%20{kid}", kid.upper()):
        with closing(connection(server)) as client:
            client.request("DELETE", f"{PREFIX}/keys/{spelling}")
            assert refusal_of(client.getresponse()) == (404, "not_found")
    live.ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path", [f"{PREFIX}/keys", f"{PREFIX}/keys/{UNKNOWN_KID}", "/health/ready", "/metrics", "/"]
)
def test_no_cache_keeps_what_is_so_now_or_for_the_caller(
    server: str, method: str, path: str
) -> None:
    answer = requests.request(method, server + path, timeout=ANSWER.seconds)
    assert answer.headers["Cache-Control"] == "no-store"


# --- media types ---


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jose+json",
        "application/jsonp",
        "application/xml",
        "application/octet-stream",
        "json",
        "*/*",
    ],
)
@every_post
def test_another_media_type_is_refused(live: Api, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = live.request("POST", path, data=b"{}", headers=headers)
    assert answer.refusal == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/JSON",
        "application/json; profile=x",
    ],
)
def test_json_is_accepted_however_it_is_spelt(live, mac_body, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    answer = live.request("POST", "/mac", data=json.dumps(mac_body), headers=headers)
    assert answer.status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
def test_an_encoded_body_is_refused(live: Api, mac_body: Any, coding: str) -> None:
    headers = {**JSON, "Content-Encoding": coding}
    answer = live.request("POST", "/mac", data=json.dumps(mac_body), headers=headers)
    assert answer.refusal == (415, "unsupported_media_type")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*;q=0"])
def test_errors_are_json_whatever_is_asked_for(live: Api, accept: str) -> None:
    assert live.request("GET", "/unknown", headers={"Accept": accept}).status == 404


# --- JSON ---

NOT_STRICT_JSON: Mapping[str, bytes] = {
    "empty": b"",
    "white space": b" \n",
    "array": b"[]",
    "array of an object": b"[{}]",
    "number": b"1",
    "string": b'"kid"',
    "null": b"null",
    "true": b"true",
    "unclosed": b'{"kid":',
    "trailing garbage": b'{"kid":"a"} x',
    "two objects": b"{}{}",
    "trailing comma": b'{"kid":"a",}',
    "single quotes": b"{'kid':'a'}",
    "comment": b'{"kid":"a"/**/}',
    "leading zero": b'{"x":01}',
    "control character": b'{"x":"\n"}',
    "bad escape": b'{"x":"\\x"}',
    "NUL after": b"{}\0",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"kid":"a"}'.encode("utf-16"),
    "UTF-16 without mark": '{"kid":"a"}'.encode("utf-16-le"),
    "UTF-32": '{"kid":"a"}'.encode("utf-32-be"),
    "Latin-1": b'{"kid":"\xe9"}',
    "overlong UTF-8": b'{"kid":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"kid":"\xed\xa0\x80"}',
    "duplicate members": b'{"kid":"a","kid":"a"}',
    "duplicate unknown members": b'{"x":1,"x":1}',
    "duplicate by escape": rb'{"kid":"a","\u006bid":"b"}',
    "nested duplicates": b'{"x":[{"y":1,"y":2}]}',
    "NaN": b'{"x":NaN}',
    "Infinity": b'{"x":Infinity}',
    "-Infinity": b'{"x":[-Infinity]}',
    "1e999": b'{"x":1e999}',
    "-1e999": b'{"x":{"y":-1e999}}',
    "5000 digits": b'{"x":' + b"9" * 5000 + b"}",
    "1 MiB of digits": b'{"bits":' + b"9" * MIB + b"}",
    "lone surrogate": rb'{"kid":"\ud800"}',
    "lone low surrogate": rb'{"kid":"\udc00"}',
    "swapped surrogates": rb'{"kid":"\udc00\ud800"}',
    "lone surrogate in an unknown member": rb'{"x":["\uDBFF"]}',
    "lone surrogate in a name": rb'{"\ud800":1}',
    "lone surrogate in a nested name": rb'{"x":{"\ud800":1}}',
    "100k arrays": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100k arrays at the top": b"[" * 100_000 + b"]" * 100_000,
    "100k objects": b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
    "100k open arrays": b"[" * 100_000,
    "2 MiB of open objects": b'{"":' * (MIB // 2),
}
every_not_json = pytest.mark.parametrize("body", NOT_STRICT_JSON.values(), ids=NOT_STRICT_JSON)


@every_not_json
@every_post
def test_what_is_not_strict_json_is_a_bad_request(live: Api, path: str, body: bytes) -> None:
    answer = live.request("POST", path, data=body, headers=JSON)
    assert answer.refusal == (400, "bad_request")


def test_an_integer_beyond_any_double_is_refused_wherever_it_stands(live: Api) -> None:
    body = b'{"bytes":1,"x":[-%b]}'
    assert live.request("POST", "/random", data=body % (b"9" * 309), headers=JSON).status == 200
    answer = live.request("POST", "/random", data=body % (b"9" * 310), headers=JSON)
    assert answer.refusal == (400, "bad_request")


@pytest.mark.parametrize(
    "unknown",
    [
        rb'"x":"\ud83d\ude00"',
        b'"x":1e308',
        b'"x":-0.0',
        b'"x":[[[[{"y":{"z":null}}]]]]',
        '"é":"ключ"'.encode(),
        rb'"x":"\\ud800"',
        rb'"\u0000":"\u0000"',
    ],
)
def test_strict_json_is_no_stricter_than_that(live: Api, mac_body: Any, unknown: bytes) -> None:
    body = b" \r\n\t" + json.dumps(mac_body).encode()[:-1] + b"," + unknown + b"}\n"
    assert live.request("POST", "/mac", data=body, headers=JSON).status == 200


def levels(number: int) -> bytes:
    """Return an array in arrays, in an object: so many levels."""
    return b'{"x":' + b"[" * (number - 1) + b"]" * (number - 1) + b"}"


@every_post
def test_a_body_is_at_most_200_levels_deep(live: Api, path: str) -> None:
    refused = live.request("POST", path, data=levels(201), headers=JSON)
    assert refused.refusal == (400, "bad_request")
    assert refused.body["description"] == "The body is more than 200 levels deep"
    answer = live.request("POST", path, data=levels(200), headers=JSON)
    assert "is required" in answer.body["description"]


MANY_VALUES = {
    "arrays": b'{"x":[' + b"[]," * 60_000 + b"1]}",
    "members": b"{" + b",".join(b'"%d":1' % number for number in range(60_000)) + b"}",
    "elements": b'{"x":[' + b"1," * 60_000 + b"1]}",
    "objects": b'{"x":' + b"[{},{}," * 20_000,
}


@pytest.mark.parametrize("body", MANY_VALUES.values(), ids=MANY_VALUES)
@every_post
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(live, path, body) -> None:
    answer = live.request("POST", path, data=body, headers=JSON)
    assert answer.refusal == (400, "bad_request")
    assert answer.body["description"] == "The body has more than 50000 values"


def test_the_largest_batch_has_not_too_many_values(live: Api, mac_body: Any) -> None:
    unknown = {f"x{number}": number for number in range(40)}
    request = {"op": "mac", "id": "a", "body": mac_body | unknown}
    answer = live.post("/batch", {"requests": [request] * 1000})
    assert {part["status"] for part in answer.body["responses"]} == {200}


# --- the body limit ---

every_framing = pytest.mark.parametrize("framing", ["Content-Length", "chunked"])


@every_framing
def test_a_body_of_the_limit_passes(server: str, mac_body: Any, framing: str) -> None:
    request, body = framed("/mac", padded(mac_body, LIMIT), framing)
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(request + body)
        with answer_on(channel) as response:
            assert response.status == 200, response.read()


@pytest.mark.parametrize("excess", [1, 2, 65_536, MIB, 10 * MIB])
@every_framing
def test_a_longer_body_is_too_large(server, mac_body, framing: str, excess: int) -> None:
    request, body = framed("/mac", padded(mac_body, LIMIT + excess), framing)
    assert exchange(server, request, body) == (413, "payload_too_large")


def test_a_chunked_body_is_not_cut_at_the_limit(server: str, mac_body: Any) -> None:
    body = padded(mac_body, LIMIT) + b"this is not JSON"
    request, content = framed("/mac", body, "chunked")
    assert exchange(server, request, content) == (413, "payload_too_large")


def test_a_length_beyond_all_reason_is_refused_unread(server: str) -> None:
    request = head_of("/mac", Content_Length=str(10**12))
    assert exchange(server, request) == (413, "payload_too_large")


@every_framing
@pytest.mark.parametrize("path", POSTS)
def test_a_client_that_sends_10_mib_too_many_gets_the_answer(server, path, framing: str) -> None:
    body = b"{" + b" " * (LIMIT + 10 * MIB) + b"}"
    pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    data = pieces if framing == "chunked" else body
    response = requests.post(
        f"{server}{PREFIX}{path}", data=data, headers=JSON, timeout=ANSWER.seconds
    )
    assert response.status_code == 413
    assert response.json()["error"] == "payload_too_large"


def test_a_plaintext_of_1_mib_passes(live: Api) -> None:
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    data = b64u(bytes(range(256)) * (MIB // 256))
    jwe = live.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": data})
    assert len(unb64u(jwe["ciphertext"])) == MIB
    assert live.ok("/decrypt", jwe)["data"] == data


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n"],
    ids=["size", "negative size", "terminator"],
)
def test_a_malformed_chunk_is_a_bad_request(server: str, body: bytes) -> None:
    request = head_of("/mac", Transfer_Encoding="chunked")
    assert exchange(server, request, body) == (400, "bad_request")


@pytest.mark.parametrize(
    ("request_head", "body"),
    [
        (head_of("/mac", Content_Length="100"), b'{"kid":'),
        (head_of("/mac", Transfer_Encoding="chunked"), b'5\r\n{"k'),
    ],
    ids=["Content-Length", "chunked"],
)
def test_a_truncated_body_is_a_bad_request(server: str, request_head: bytes, body: bytes) -> None:
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(request_head + body)
        channel.shutdown(socket.SHUT_WR)
        with answer_on(channel) as response:
            assert refusal_of(response) == (400, "bad_request")


def test_a_body_broken_off_is_no_request_even_if_it_could_be_one(server, mac_body) -> None:
    body = json.dumps(mac_body).encode()
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(head_of("/mac", Content_Length=str(len(body) + 1)) + body)
        channel.shutdown(socket.SHUT_WR)
        with answer_on(channel) as response:
            assert refusal_of(response) == (400, "bad_request")


def test_a_chunk_that_says_it_is_too_large_is_refused_unread(server: str) -> None:
    request = head_of("/mac", Transfer_Encoding="chunked")
    assert exchange(server, request, b"300000\r\n{") == (413, "payload_too_large")


# --- expectations ---

EXPECTED = {"Expect": "100-continue"}
DECIDED_BY_THE_HEADER: Mapping[str, tuple[bytes, int, str]] = {
    "no path": (head_of("/unknown", **EXPECTED, Content_Length="2"), 404, "not_found"),
    "method": (
        head_of("/mac", **EXPECTED, Content_Length="2").replace(b"POST", b"PUT"),
        405,
        "method_not_allowed",
    ),
    "length": (head_of("/mac", **EXPECTED, Content_Length="3000000"), 413, "payload_too_large"),
    "media type": (
        head_of("/mac", **EXPECTED, Content_Length="2").replace(b"/json", b"/xml"),
        415,
        "unsupported_media_type",
    ),
}


@pytest.mark.parametrize(
    ("request_head", "status", "code"), DECIDED_BY_THE_HEADER.values(), ids=DECIDED_BY_THE_HEADER
)
def test_what_the_header_section_decides_is_answered_at_once(server, request_head, status, code):
    assert exchange(server, request_head) == (status, code)


def test_who_is_nobody_is_not_asked_for_a_body(callers) -> None:
    for token in (b"", b"Authorization: Bearer jh_x\r\n"):
        request = head_of("/mac", **EXPECTED, Content_Length="2")[:-2] + token + b"\r\n"
        assert exchange(callers.url, request) == (401, "unauthorized")


@every_framing
def test_who_may_send_a_body_is_told_to(server: str, mac_body: Any, framing: str) -> None:
    request, body = framed("/mac", json.dumps(mac_body).encode(), framing)
    request = request[:-2] + b"Expect: 100-Continue\r\n\r\n"
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        for _ in range(2):
            channel.sendall(request)
            interim = channel.recv(1000)
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            channel.sendall(body)
            with answer_on(channel) as response:
                assert response.status == 200, response.read()
                response.read()


def test_who_does_not_wait_is_not_told_to_go_on(server: str, mac_body: Any) -> None:
    body = json.dumps(mac_body).encode()
    request = head_of("/mac", **EXPECTED, Content_Length=str(len(body)))
    for data in (request + body, request.replace(b"HTTP/1.1", b"HTTP/1.0") + body):
        with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
            channel.sendall(data)
            with answer_on(channel) as response:
                assert response.status == 200, response.read()


def test_an_expectation_that_nobody_knows_is_ignored(server: str, mac_body: Any) -> None:
    body = json.dumps(mac_body).encode()
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(head_of("/mac", Expect="miracles", Content_Length=str(len(body))) + body)
        with answer_on(channel) as response:
            assert response.status == 200, response.read()


# --- connections ---


def test_requests_that_come_together_are_answered_in_order(server: str, mac_body: Any) -> None:
    requests_ = [
        b"".join(framed("/mac", json.dumps(mac_body | {"data": data}).encode(), framing))
        for data, framing in (("AAAA", "chunked"), ("BBBB", "Content-Length"), ("CCCC", "chunked"))
    ]
    macs = []
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(b"".join(requests_))
        for _ in requests_:
            status, _, rest = read_answer(channel)
            assert status == 200
            macs.append(rest["mac"])
    assert len(set(macs)) == 3
    assert macs == [
        api_of(server).ok("/mac", mac_body | {"data": data})["mac"]
        for data in ("AAAA", "BBBB", "CCCC")
    ]


def read_answer(channel: socket.socket) -> tuple[int, Mapping[str, str], Any]:
    """Read one answer and nothing of the next."""
    top = b""
    while not top.endswith(b"\r\n\r\n"):
        top += channel.recv(1)
    line, *fields = top.decode().split("\r\n")
    headers = dict(field.lower().split(": ", 1) for field in fields if field)
    body = b""
    while len(body) < int(headers["content-length"]):
        body += channel.recv(int(headers["content-length"]) - len(body))
    return int(line.split()[1]), headers, json.loads(body)


def bad_requests() -> Iterator[Any]:
    post, unread = f"POST {PREFIX}", b" " * 300_000
    yield pytest.param(f"{post}/mac", JSON, b"", id="400")
    yield pytest.param(f"{post}/mac", JSON, b"{", id="400 with a body")
    yield pytest.param("POST /unknown", JSON, b"{}", id="404")
    yield pytest.param("POST /unknown", JSON, unread, id="404 with 300 kB")
    yield pytest.param(f"DELETE {PREFIX}/keys/x", {}, b"", id="404 of a kid")
    yield pytest.param(f"DELETE {PREFIX}/keys/x", JSON, unread, id="404 of a kid with 300 kB")
    yield pytest.param(f"PUT {PREFIX}/mac", JSON, b"{}", id="405")
    yield pytest.param(f"PUT {PREFIX}/mac", JSON, unread, id="405 with 300 kB")
    yield pytest.param(f"{post}/mac", JSON, b" " * (LIMIT + 1), id="413")
    yield pytest.param(f"{post}/mac", {}, b"{}", id="415")
    yield pytest.param(f"{post}/mac", {}, unread, id="415 with 300 kB")


@pytest.mark.parametrize(("line", "headers", "body"), list(bad_requests()))
def test_a_connection_that_is_kept_alive_after_an_error_is_alive(
    server: str, line: str, headers: Mapping[str, str], body: bytes
) -> None:
    method, path = line.split(" ")
    with closing(connection(server)) as client:
        for _ in range(3):
            with suppress(BrokenPipeError, ConnectionResetError):  # answered before all was sent
                client.request(method, path, body=body, headers=dict(headers))
            response = client.getresponse()
            refusal_of(response)
            if response.headers["Connection"] == "close":
                return
            client.request("GET", "/unknown")
            assert refusal_of(client.getresponse()) == (404, "not_found")


@pytest.mark.parametrize(("line", "headers", "body"), list(bad_requests()))
def test_an_error_is_the_same_on_a_new_and_on_an_open_connection(
    server: str, line: str, headers: Mapping[str, str], body: bytes
) -> None:
    method, path = line.split(" ")

    def ask(client: http.client.HTTPConnection, **more: str) -> tuple[int, Any, bytes]:
        with suppress(BrokenPipeError, ConnectionResetError):  # answered before it was all sent
            client.request(method, path, body=body, headers={**headers, **more})
        response = client.getresponse()
        fields = {
            name: value
            for name, value in response.headers.items()
            if name not in ("Date", "Connection", "X-Request-Id")
        }
        return response.status, fields, response.read()

    with closing(connection(server)) as kept, closing(connection(server)) as closed:
        kept.request("GET", "/unknown")
        kept.getresponse().read()
        assert ask(kept) == ask(closed, Connection="close")


@pytest.mark.parametrize("options", ["close", "Close,TE", "TE, close", "keep-alive\t,close"])
def test_a_connection_ends_if_that_is_one_of_several_things_wanted(server, options) -> None:
    head = f"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: {options}\r\n\r\n"
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(head.encode())
        status, headers, _ = read_answer(channel)
        assert (status, headers["connection"]) == (200, "close")
        assert channel.recv(1) == b""


GUNICORN_REFUSES: Mapping[str, tuple[bytes, int]] = {
    "no request line": (b"NONSENSE\r\n\r\n", 400),
    "no path": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "method in lower case": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "raw bytes in the path": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "HTTP/1.1 without Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n", 400),
    "header without colon": (b"GET / HTTP/1.1\r\nHost x\r\n\r\n", 400),
    "both framings": (head_of("/mac", Content_Length="3", Transfer_Encoding="chunked"), 400),
    "negative length": (head_of("/mac", Content_Length="-1"), 400),
    "two lengths": (head_of("/mac", Content_Length="1, 2"), 400),
    "URL of 9000 characters": (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000), 414),
    "header of 9000 bytes": (head_of("/mac", X="a" * 9000), 431),
    "101 headers": (head_of("/mac", **{f"X{number}": "y" for number in range(101)}), 431),
    "transfer coding": (head_of("/mac", Transfer_Encoding="xchunked"), 501),
    "compressed body": (head_of("/mac", Transfer_Encoding="gzip, chunked"), 501),
}


@pytest.mark.parametrize(
    ("request_head", "status"), GUNICORN_REFUSES.values(), ids=GUNICORN_REFUSES
)
def test_what_gunicorn_refuses_is_answered_in_json(server, request_head, status: int) -> None:
    assert exchange(server, request_head) == (status, "bad_request")


def test_the_page_of_errors_has_each_status_of_what_gunicorn_refuses() -> None:
    rows = (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines()
    (row,) = [row for row in rows if row.startswith("| `bad_request` |")]
    assert all(str(status) in row for _, status in GUNICORN_REFUSES.values())


def test_gunicorn_does_not_echo_the_request(server: str) -> None:
    with closing(socket.create_connection(address(server), timeout=ANSWER.seconds)) as channel:
        channel.sendall(b"CANARY-4711\r\n\r\n")
        with answer_on(channel) as response:
            assert b"CANARY-4711" not in response.read()


@pytest.mark.parametrize("length", [3_000, 4_000])
def test_a_long_path_is_not_found(server: str, length: int) -> None:
    with closing(connection(server)) as client:
        client.request("GET", "/" + "a" * length)
        assert refusal_of(client.getresponse()) == (404, "not_found")


# --- other settings ---


def operations(live: Api) -> dict[str, Any]:
    """Return one valid body for each operation, with keys of their own."""
    aes = live.create(kty="oct", alg="A256GCM")["kid"]
    rsa = live.shared(kty="RSA")["kid"]
    encrypt = {"kid": aes, "alg": "dir", "enc": "A256GCM", "data": "AAAA"}
    sign = {"kid": rsa, "alg": "PS256", "data": "AAAA"}
    return {
        "/keys": {"kty": "oct", "alg": "HS256"},
        "/keys/unwrap": live.ok("/encrypt", encrypt | {"kid": rsa, "alg": "RSA-OAEP"}),
        "/encrypt": encrypt,
        "/decrypt": live.ok("/encrypt", encrypt),
        "/sign": sign,
        "/verify": live.ok("/sign", sign) | {"data": "AAAA"},
        "/mac": {
            "kid": live.create(kty="oct", alg="HS256")["kid"],
            "alg": "HS256",
            "data": "AAAA",
        },
    }


@pytest.fixture(scope="module")
def valid(live: Api) -> dict[str, Any]:
    return operations(live)


@pytest.fixture(scope="module")
def without_token(serve: Any, environment: Mapping[str, str]) -> Iterator[Api]:
    """A service whose token is not there, with the registry of the others."""
    settings = {**environment, "JOSE_HSM_TOKEN_LABEL": "absent"}
    with serve(settings, workers=1) as url:
        yield api_of(url)


@every_post
def test_without_a_token_keys_are_unavailable(without_token: Api, valid: Any, path: str) -> None:
    answer = without_token.post(path, valid[path])
    assert answer.refusal == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_without_a_token_no_key_is_deleted(without_token: Api, live: Api) -> None:
    kid = live.create(kty="oct", alg="HS256")["kid"]
    answer = without_token.delete(kid)
    assert answer.refusal == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert live.delete(kid).status == 204


def test_without_a_token_other_answers_stay_as_they_are(without_token: Api, valid: Any) -> None:
    for _ in range(3):
        assert without_token.post("/sign", valid["/sign"]).refusal == (503, "unavailable")
        assert without_token.post("/sign", {}).refusal == (400, "bad_request")
        bad_alg = valid["/sign"] | {"alg": "none"}
        assert without_token.post("/sign", bad_alg).refusal == (422, "unsupported_algorithm")
        # Only the token knows whether this registry is its own, and so whether the key exists.
        unknown = valid["/sign"] | {"kid": UNKNOWN_KID}
        assert without_token.post("/sign", unknown).refusal == (503, "unavailable")
        assert without_token.request("GET", "/nothing").refusal == (404, "not_found")
        assert without_token.request("GET", "/sign").refusal == (405, "method_not_allowed")


def test_a_key_that_could_not_be_created_is_nowhere(without_token: Api, live: Api) -> None:
    answer = without_token.post("/keys", {"kty": "oct", "alg": "HS256", "k": b64u(bytes(32))})
    assert answer.refusal == (503, "unavailable")
    assert "kid" not in answer.body
    live.create(kty="oct", alg="HS256")


@pytest.fixture(scope="module")
def fips(serve: Any, environment: Mapping[str, str]) -> Iterator[Api]:
    with serve({**environment, "JOSE_HSM_FIPS": "1", "JOSE_HSM_RSA1_5": "1"}, workers=1) as url:
        yield api_of(url)


@pytest.mark.parametrize(
    "body",
    [
        {"kty": "OKP"},
        {"kty": "OKP", "alg": "EdDSA"},
        {"kty": "OKP", "alg": "Ed448"},
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "OKP", "alg": "EdDSA", "d": b64u(bytes(32))},
        {"kty": "AKP", "alg": "MLDSA44"},
        {"kty": "AKP", "alg": "ML-DSA-65"},
        {"kty": "OKP", "alg": "ECDH-ES", "crv": "X25519"},
        {"kty": "RSA", "alg": "RSA1_5"},
    ],
    ids=str,
)
def test_fips_mode_makes_none_of_these_keys(fips: Api, body: Any) -> None:
    assert fips.post("/keys", body).refusal == (422, "unsupported_algorithm")


def test_fips_mode_neither_signs_nor_verifies_with_edwards_keys(fips: Api, live: Api) -> None:
    sign = {"kid": live.create(kty="OKP")["kid"], "alg": "EdDSA", "data": "AAAA"}
    verify = live.ok("/sign", sign) | {"data": "AAAA"}
    assert live.ok("/verify", verify)["valid"] is True
    assert fips.post("/sign", sign).refusal == (422, "unsupported_algorithm")
    assert fips.post("/verify", verify).refusal == (422, "unsupported_algorithm")


def test_fips_mode_agrees_on_keys_on_nist_curves_only(fips: Api, live: Api) -> None:
    def message(crv: str, kty: str) -> tuple[dict[str, str], Any]:
        kid = live.create(kty=kty, alg="ECDH-ES+A128KW", crv=crv)["kid"]
        request = {"kid": kid, "alg": "ECDH-ES+A128KW", "enc": "A128GCM", "data": "AAAA"}
        return request, live.ok("/encrypt", request)

    nist, jwe = message("P-384", "EC")
    assert fips.ok("/decrypt", jwe)["data"] == "AAAA"
    fips.ok("/encrypt", nist)
    edwards, jwe = message("X25519", "OKP")
    for path, body in {"/encrypt": edwards, "/decrypt": jwe, "/keys/unwrap": jwe}.items():
        answer = fips.post(path, body)
        assert answer.refusal == (422, "unsupported_algorithm")
        assert "FIPS" in answer.body["description"]


@every_post
def test_fips_mode_does_everything_else(fips: Api, valid: Any, path: str) -> None:
    fips.ok(path, valid[path])


@pytest.mark.parametrize(
    "key",
    [
        *({"kty": "RSA", "alg": alg} for alg in ("RS512", "PS384", "RSA-OAEP", "RSA-OAEP-256")),
        *({"kty": "EC", "crv": crv} for crv in ("P-256", "P-384", "P-521")),
        *({"kty": "oct", "alg": alg} for alg in ("A128GCM", "A192GCM", "HS384", "HS512")),
        {"kty": "oct", "alg": "A192KW"},
        {"kty": "EC", "crv": "P-521", "alg": "ECDH-ES"},
    ],
    ids=lambda key: key.get("alg") or key["crv"],
)
def test_fips_mode_makes_every_other_key(fips: Api, key: Any) -> None:
    assert fips.delete(fips.ok("/keys", key)["kid"]).status == 204


@pytest.fixture(scope="module")
def cek_in_token(serve: Any, environment: Mapping[str, str]) -> Iterator[Api]:
    """A service that keeps CEKs in the token; SoftHSM has no OAEP with SHA-256."""
    with serve({**environment, "JOSE_HSM_CEK": "token"}, workers=1) as url:
        yield api_of(url)


@pytest.mark.parametrize(
    "alg",
    [
        pytest.param("RSA-OAEP-256", marks=pytest.mark.softhsm),
        *("ECDH-ES", "ECDH-ES+A256KW"),
    ],
)
def test_ceks_in_the_process_can_be_forbidden(cek_in_token: Api, live: Api, alg: str) -> None:
    key = body_of(alg)
    kid = live.create(**key)["kid"]
    encrypt = {"kid": kid, "alg": alg, "enc": "A128GCM", "data": "AAAA"}
    jwe = live.ok("/encrypt", encrypt)
    live.ok("/decrypt", jwe)
    for path, body in {
        "/keys": key,
        "/keys/unwrap": jwe,
        "/encrypt": encrypt,
        "/decrypt": jwe,
    }.items():
        assert cek_in_token.post(path, body).refusal == (422, "unsupported_algorithm"), path


@pytest.mark.softhsm
def test_a_forbidden_algorithm_is_refused_before_the_key_is_sought(cek_in_token: Api) -> None:
    protected = header(alg="RSA-OAEP-256", enc="A128GCM", kid=UNKNOWN_KID)
    jwe = {"protected": protected, "encrypted_key": "AAAA"}
    assert cek_in_token.post("/keys/unwrap", jwe).refusal == (422, "unsupported_algorithm")


def test_ceks_that_would_be_split_in_the_process_are_forbidden_and_no_others(
    cek_in_token: Api, live: Api
) -> None:
    kid = live.shared(kty="RSA", alg="RSA-OAEP")["kid"]
    encrypt = {"kid": kid, "alg": "RSA-OAEP", "enc": "A128CBC-HS256", "data": "AAAA"}
    jwe = live.ok("/encrypt", encrypt)
    unknown = jwe | {"protected": header(**{**encrypt, "kid": UNKNOWN_KID})}
    for path, body in (
        ("/encrypt", encrypt),
        ("/encrypt", encrypt | {"kid": UNKNOWN_KID}),
        ("/decrypt", jwe),
        ("/decrypt", unknown),
        ("/keys/unwrap", jwe),
    ):
        answer = cek_in_token.post(path, body)
        assert answer.refusal == (422, "unsupported_algorithm"), path
        assert "RSA-OAEP with A128CBC-HS256" in answer.body["description"]
    cek_in_token.ok("/encrypt", encrypt | {"enc": "A128GCM"})
    direct = cek_in_token.create(kty="oct", alg="A128CBC-HS256")["kid"]
    cek_in_token.ok("/encrypt", encrypt | {"kid": direct, "alg": "dir"})


@pytest.mark.softhsm
def test_with_ceks_in_the_token_one_for_others_too_stays_there(cek_in_token: Api) -> None:
    pair = cek_in_token.create(kty="RSA", alg="RSA-OAEP")["kid"]
    jwk = {name: cek_in_token.get(f"/keys/{pair}").body["jwk"][name] for name in ("kty", "n", "e")}
    held = {"kid": cek_in_token.create(**body_of("A192KW"))["kid"], "alg": "A192KW"}
    body = {"enc": "A256GCM", "data": b64u("data"), "serialization": "general"}
    both = [held, {"jwk": jwk, "alg": "RSA-OAEP"}]
    jwe = cek_in_token.ok("/encrypt", body | {"recipients": both})
    for kid in (held["kid"], pair):
        alone = [jwe["recipients"][kid == pair]]
        message = jwe | {"recipients": alone, "kid": kid}
        assert cek_in_token.ok("/decrypt", message)["data"] == b64u("data")
    both[1]["alg"] = "RSA-OAEP-256"
    refused = cek_in_token.post("/encrypt", body | {"recipients": both})
    assert refused.refusal == (422, "unsupported_algorithm")


def test_with_ceks_in_the_token_messages_are_rewrapped_there(cek_in_token: Api, live: Api) -> None:
    old, new = (cek_in_token.create(**body_of(alg))["kid"] for alg in ("A128KW", "A192KW"))
    shown = live.create(**body_of("A256GCMKW"))["kid"]
    asked = {"enc": "A256GCM", "data": b64u("data"), "serialization": "general"}
    jwe = cek_in_token.ok("/encrypt", asked | {"recipients": [{"kid": old, "alg": "A128KW"}]})
    made = cek_in_token.ok("/rewrap", jwe | {"to": {"kid": new, "alg": "A192KW"}})
    assert cek_in_token.ok("/decrypt", made) == {"kid": new, "data": b64u("data")}
    to_shown = jwe | {"to": {"kid": shown, "alg": "A256GCMKW"}}
    assert cek_in_token.post("/rewrap", to_shown).refusal == (422, "unsupported_algorithm")
    assert live.post("/rewrap", to_shown).status == 200


@every_post
def test_with_ceks_in_the_token_everything_else_works(cek_in_token, valid, path: str) -> None:
    cek_in_token.ok(path, valid[path])


@pytest.mark.parametrize("alg", ["RSA-OAEP", "A192KW"])
def test_with_ceks_in_the_token_what_keeps_them_there_works(cek_in_token: Api, alg: str) -> None:
    kid = cek_in_token.create(**body_of(alg))["kid"]
    body = {"kid": kid, "alg": alg, "enc": "A256GCM", "data": b64u("data")}
    jwe = cek_in_token.ok("/encrypt", body)
    assert cek_in_token.ok("/decrypt", jwe)["data"] == b64u("data")
    key = cek_in_token.ok("/keys/unwrap", jwe)
    direct = {"kid": key["kid"], "alg": "dir", "enc": "A256GCM", "data": b64u("more")}
    again = cek_in_token.ok("/encrypt", direct)
    assert cek_in_token.ok("/decrypt", again)["data"] == b64u("more")
