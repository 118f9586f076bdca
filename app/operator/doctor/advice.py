"""What is said of each finding: how bad it is, what was seen, and what to do about it."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from app.settings import PREFIX


class Result(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Advice(NamedTuple):
    """``seen`` and ``advice`` are filled with the facts and the settings."""

    result: Result
    seen: str
    advice: str = ""


def _ok(seen: str) -> Advice:
    return Advice(Result.OK, seen)


def _warning(seen: str, advice: str) -> Advice:
    return Advice(Result.WARNING, seen, advice)


def _failed(seen: str, advice: str) -> Advice:
    return Advice(Result.FAILED, seen, advice)


def _skipped(seen: str) -> Advice:
    return Advice(Result.SKIPPED, seen)


_IN_TROUBLE: Final = "The token is in trouble: look into its own log, then run this again."
_FREE_SPACE: Final = "Free space there, or move it to a larger disk."
COMMON: Final = {
    "error": _failed("no answer: {answer}", _IN_TROUBLE),
    "hangs": _failed(
        "does not come back within {seconds:g} s",
        "The library waits for its token. Is the HSM switched on, and does the network reach it? "
        "Nothing else of the token is looked at.",
    ),
    "unexpected": _failed(
        "unexpected {type}", "This is a fault of jose-hsm: please report it with this table."
    ),
    "skipped": _skipped("needs: {needs}"),
}

_ADVICE: Final[Mapping[str, Mapping[str, Advice]]] = {
    "settings": {"": _ok("token {token}, STATE_DIR {state_dir}, {workers} workers")},
    "state_dir": {
        "": _ok("{state_dir}, ours alone"),
        "missing": _failed(
            "there is no directory {state_dir}",
            f"Run `jose-hsm migrate`, which makes it, or set {PREFIX}STATE_DIR to the directory of "
            "the service.",
        ),
        "not_ours": _failed(
            "{state_dir} belongs to {owner}, and this runs as {user}",
            "Run this as the service runs: sudo -u {owner} jose-hsm doctor. Files that another "
            "user makes there would stop the service.",
        ),
        "not_writable": _failed(
            "{state_dir} cannot be written", "Give it to the user of the service, with mode 0700."
        ),
        "open": _warning("others may write to {state_dir} (mode {mode})", "chmod 0700 {state_dir}"),
    },
    "disk.state": {
        "": _ok("{free_mib} MiB free at {path}"),
        "unknown": _skipped("there is no such directory"),
        "low": _warning("only {free_mib} MiB free at {path}", _FREE_SPACE),
        "full": _failed(
            "{free_kib} KiB free at {path}",
            f"{_FREE_SPACE} Until then no key is made or destroyed, and a refused PIN could not "
            "be remembered: so no login is tried.",
        ),
    },
    "disk.token": {
        "": _ok("{free_mib} MiB free at {path}"),
        "unknown": _ok("the token keeps no files that we know of"),
        "low": _warning("only {free_mib} MiB free at {path}", _FREE_SPACE),
        "full": _failed(
            "{free_kib} KiB free at {path}",
            f"{_FREE_SPACE} SoftHSM rewrites its token at each login and can lose it on a full "
            "disk: so no login is tried.",
        ),
    },
    "pin_file": {
        "": _ok("{pin_file} can be read"),
        "environment": _warning(
            "the PIN is in the environment",
            f"Everybody who may look at the process sees it: put it into a file of mode 0600 and "
            f"set {PREFIX}PIN_FILE.",
        ),
        "missing": _failed(
            "there is no file {pin_file}",
            f"Write the user PIN of the token into it (mode 0600), or set {PREFIX}PIN_FILE.",
        ),
        "unreadable": _failed(
            "{pin_file} cannot be read by {user}",
            "Give the file to the user of the service: chown, then chmod 0600.",
        ),
        "empty": _failed("{pin_file} is empty", "Write the user PIN of the token into it."),
    },
    "pin_mode": {
        "": _ok("mode {mode}, of {owner}"),
        "unknown": _skipped("the PIN is not in a file"),
        "world": _failed(
            "everybody on this machine may read or write {pin_file} (mode {mode})",
            "chmod 0600 {pin_file}; then change the PIN, for somebody may know it.",
        ),
        "group": _warning(
            "the group {group} may read or write {pin_file} (mode {mode})",
            "chmod 0600 {pin_file}, unless the group is for the service alone.",
        ),
        "owner": _warning(
            "{pin_file} belongs to {owner}, and this runs as {user}",
            "Its owner can change the PIN that is tried: chown {user} {pin_file}",
        ),
    },
    "boot_lock": {
        "": _ok("no other process is opening the token"),
        "busy": _failed(
            "another process has been opening the token for {seconds:g} s",
            "A worker hangs in the token. See its log; end it if it does not end by itself.",
        ),
    },
    "module": {
        "": _ok("{path} is loaded and initialised"),
        "missing": _failed(
            "there is no file {path}",
            f"Set {PREFIX}PKCS11_MODULE to the PKCS#11 library of your token. SoftHSM2's is often "
            "/usr/lib/softhsm/libsofthsm2.so.",
        ),
        "not_a_module": _failed(
            "{path} is no PKCS#11 library for this machine",
            f"Set {PREFIX}PKCS11_MODULE to the library that the vendor names for PKCS#11, built "
            "for this processor. `ldd {path}` says whether it lacks others.",
        ),
        "error": _failed(
            "the library does not initialise: {answer}",
            "It does not find its own configuration, or may not read it. For SoftHSM2 set "
            "SOFTHSM2_CONF; for others see the vendor's page on it.",
        ),
    },
    "token": {
        "": _ok(
            "'{label}', serial {serial}: {token} {firmware_version}, by {library} {library_version}"
        ),
        "missing": _failed(
            "no token with {wanted}; there: {there}",
            f"Set {PREFIX}TOKEN_LABEL to one that is there. If yours is not: is its configuration "
            "the one meant (SOFTHSM2_CONF), is the HSM connected, has the token been initialised?",
        ),
        "several": _failed(
            "more than one token has {wanted}; there: {there}",
            f"Set {PREFIX}TOKEN_SERIAL, which no two tokens share.",
        ),
        "error": _failed("the token does not show itself: {answer}", _IN_TROUBLE),
    },
    "flags": {
        "": _ok("the token has a PIN, and all its tries"),
        "no_pin": _failed(
            "the token has no user PIN yet",
            "Its security officer sets one: pkcs11-tool --init-pin, or the vendor's tool.",
        ),
        "locked": _failed(
            "the token has locked the PIN",
            "Its security officer sets it anew. Put the new one into {pin_file}.",
        ),
        "final_try": _failed(
            "the token allows one more try and then locks the PIN: it is not spent here",
            "Make sure that {pin_file} holds the right PIN, and log in with the vendor's tool "
            "once, which gives back all tries.",
        ),
        "to_be_changed": _failed(
            "the token wants the PIN changed before it is used",
            "Change it with the vendor's tool (pkcs11-tool --change-pin), then in {pin_file}.",
        ),
        "count_low": _warning(
            "somebody has tried a wrong PIN",
            "If {pin_file} holds the right one now, the login below clears this.",
        ),
        "write_protected": _failed(
            "the token is write-protected", "No key can be made: see the vendor's tool."
        ),
    },
    "pin_latch": {
        "": _ok("this PIN has not been refused"),
        "closed": _failed(
            "this PIN has been refused before, and is not tried again",
            "Write the right PIN into {pin_file}: a changed PIN is tried by itself. If it is right "
            "and the token was mended, remove {latch}.",
        ),
        "error": _failed(
            "it cannot be seen whether this PIN has been refused: {answer}",
            "Give {latch} to the user of the service.",
        ),
    },
    "login": {
        "": _ok("logged in"),
        "refused": _failed(
            "the token refuses the PIN; neither this nor the service tries it again",
            "Write the user PIN (not that of the security officer) into {pin_file}: a changed PIN "
            "is tried by itself.",
        ),
        "locked": _failed(
            "the token has locked the PIN; neither this nor the service tries it again",
            "Its security officer sets it anew. Put the new one into {pin_file}.",
        ),
        "expired": _failed(
            "the token wants a new PIN; neither this nor the service tries this one again",
            "Change it with the vendor's tool (pkcs11-tool --change-pin), then in {pin_file}.",
        ),
        "error": _failed("no login: {answer}", _IN_TROUBLE),
    },
    "sessions": {
        "": _ok("{number} opened at once, as {workers} workers need"),
        "too_few": _failed(
            "{workers} workers need {number}; the token has {most}, of which {open} are open",
            f"Set {PREFIX}SESSIONS lower, or start fewer workers (WEB_CONCURRENCY).",
        ),
        "refused": _failed(
            "{workers} workers need {number}; after {opened} the token answers {answer}",
            f"Set {PREFIX}SESSIONS lower, or start fewer workers (WEB_CONCURRENCY).",
        ),
    },
    "random": {
        "": _ok("the token gives random bytes"),
        "constant": _failed(
            "the random bytes of the token are not random",
            "Do not use this token: keys and IVs could be guessed. Ask its vendor.",
        ),
    },
    "canary": {
        "": _ok("the canary is there and is used"),
        "absent": _ok("keys are used; the service makes its canary at the first start"),
        "error": _failed(
            "the token does not use a key of its own: {answer}",
            "Without one the service does not start. May this user make and use keys?",
        ),
    },
    "proof": {
        "": _ok("{offered} of {tried} algorithms are offered"),
        "none": _failed("no algorithm works", _IN_TROUBLE),
    },
    "algorithm": {
        "": _ok("agrees with {compared_with}"),
        "in_process": _ok("agrees with {compared_with}; its CEKs pass through the process"),
        "not_imported": _ok(
            "not provable by import: the token takes no keys ({answer}); a round trip is right"
        ),
        "no_example": _ok("no RFC has an example; a round trip is right"),
        "switched_off": _skipped("{reason}"),
        "rare": _skipped("not offered: {reason}; few tokens have it yet"),
        "lacking": _warning(
            "not offered: {reason}",
            "Nothing, if nobody needs it: requests that name it get 422. Else switch the mechanism "
            "on in the token (in softhsm2.conf: slots.mechanisms), or update the token.",
        ),
        "needed": _failed(
            "not offered, and keys of the registry are bound to it: {reason}",
            "These keys cannot be used. Switch the mechanism on in the token (in softhsm2.conf: "
            "slots.mechanisms) or the algorithm in the settings, or go back to the token that they "
            "were made for.",
        ),
        "wrong": _failed(
            "the token gives a wrong result",
            "Do not use this token: ask its vendor, with this table.",
        ),
        "error": _failed("wrong, or no answer: {answer}", "Do not use it: ask the token's vendor."),
    },
    "rate": {
        "": _ok("{per_second:,g} a second"),
        "not_offered": _skipped("{alg} is not offered"),
    },
    "registry": {
        "": _ok("schema {found}, {keys} keys"),
        "missing": _failed("there is no registry yet", "Run `jose-hsm migrate`."),
        "old": _failed("schema {found}; this version needs {newest}", "Run `jose-hsm migrate`."),
        "future": _failed(
            "schema {found} is from the future: this version knows {newest} at most",
            "A newer jose-hsm has written it. Install that version again, or restore a backup "
            "that is older.",
        ),
        "schema": _failed("its tables are not those of its schema", "Run `jose-hsm migrate`."),
        "permission": _failed(
            "{user} may not read and write the registry",
            "Give the file and its directory to the user of the service, or its role the rights in "
            "the database; examine the installation as that user.",
        ),
        "registry": _failed(
            "the registry does not answer",
            f"Is the database running, and {PREFIX}DATABASE_URL right? The log has its error.",
        ),
    },
    "owner": {
        "": _ok("the token belongs to this registry"),
        "none": _ok("the token belongs to no registry yet"),
        "another": _failed(
            "the token belongs to another registry, {found}",
            f"Is {PREFIX}STATE_DIR mounted, and {PREFIX}DATABASE_URL right? If that registry is "
            "lost: `jose-hsm restore`. If this one is to be used as it is: `jose-hsm claim`.",
        ),
        "error": _failed("not compared: {answer}", _IN_TROUBLE),
    },
    "audit_log": {
        "": _ok("{path} can be written"),
        "off": _warning("there is none", f"Unset {PREFIX}AUDIT_LOG to have one."),
        "not_writable": _failed(
            "{path} cannot be written",
            "Without it every request gets 503: give file and directory to the user of the "
            "service.",
        ),
    },
    "keys": {
        "": _ok("registry and token have the same {rows} keys"),
        "unknown": _warning(
            "{rows} keys in the registry; {unknown} more on the token, which nobody can reach",
            "See `jose-hsm reconcile --dry-run`. Were they made after the backup that the registry "
            "is from? They are left alone.",
        ),
        "missing": _failed(
            "{missing} of {rows} keys in the registry are not, or not wholly, on the token",
            "Requests with them get 503. Is it the right token? See `jose-hsm reconcile "
            "--dry-run`; restore the token's backup, or destroy these keys.",
        ),
        "error": _failed("registry and token cannot be compared: {answer}", _IN_TROUBLE),
    },
    "clock": {
        "": _ok("{now}"),
        "behind": _failed(
            "{now} is before {what} ({then})",
            "Set the clock, best by NTP: tokens, certificates and keys expire by it.",
        ),
        "set": _warning(
            "the clock was set by {seconds:g} s while this ran",
            "Have NTP slew it: keys and tokens expire by it.",
        ),
        "token": _warning(
            "the clock of the token differs by {seconds:g} s", "Set the clock that is wrong."
        ),
    },
}

ADVICE: Final = MappingProxyType(_ADVICE)
"""By step, and by the symptom of its finding."""
