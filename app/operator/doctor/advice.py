"""What is said of each finding: how bad it is, what was seen, and what to do about it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.operator.doctor.verdict import Advice, failed, ok, skipped, warning
from app.settings import PREFIX

_IN_TROUBLE: Final = "The token is in trouble: look into its own log, then run this again."
_FREE_SPACE: Final = "Free space there, or move it to a larger disk."
COMMON: Final = {
    "error": failed("no answer: {answer}", _IN_TROUBLE),
    "hangs": failed(
        "does not come back within {seconds:g} s",
        "The library waits for its token. Is the HSM switched on, and does the network reach it? "
        "Nothing else of the token is looked at.",
    ),
    "unexpected": failed(
        "unexpected {type}", "This is a fault of jose-hsm: please report it with this table."
    ),
    "skipped": skipped("needs: {needs}"),
}

_ADVICE: Final[Mapping[str, Mapping[str, Advice]]] = {
    "settings": {"": ok("token {token}, STATE_DIR {state_dir}, {workers} workers")},
    "state_dir": {
        "": ok("{state_dir}, ours alone"),
        "missing": failed(
            "there is no directory {state_dir}",
            f"Run `jose-hsm migrate`, which makes it, or set {PREFIX}STATE_DIR to the service's.",
        ),
        "out_of_reach": failed("{user} may not see {state_dir}", "Run this as the service runs."),
        "not_ours": failed(
            "{state_dir} belongs to {owner}, and this runs as {user}",
            "Run this as the service runs: sudo -u {owner} jose-hsm doctor. Files that another "
            "user makes there would stop the service.",
        ),
        "not_writable": failed(
            "{state_dir} cannot be written",
            "Give it to the user of the service, with mode 0700; or its disk is read-only.",
        ),
        "open": warning("others may write to {state_dir} (mode {mode})", "chmod 0700 {state_dir}"),
    },
    "disk.state": {
        "": ok("{free_mib} MiB free at {path}"),
        "unknown": skipped("there is no such directory, or it is out of reach"),
        "low": warning("only {free_mib} MiB free at {path}", _FREE_SPACE),
        "full": failed(
            "{free_kib} KiB free at {path}",
            f"{_FREE_SPACE} Until then no key is made or destroyed, and a refused PIN could not "
            "be remembered: so no login is tried.",
        ),
    },
    "disk.token": {
        "": ok("{free_mib} MiB free at {path}"),
        "unknown": ok("the token keeps no files that we know of"),
        "low": warning("only {free_mib} MiB free at {path}", _FREE_SPACE),
        "full": failed(
            "{free_kib} KiB free at {path}",
            f"{_FREE_SPACE} SoftHSM rewrites its token at each login and can lose it on a full "
            "disk: so no login is tried.",
        ),
    },
    "pin_file": {
        "": ok("{pin_file} can be read"),
        "environment": warning(
            "the PIN is in the environment",
            f"Everybody who may look at the process sees it: put it into a file of mode 0600 and "
            f"set {PREFIX}PIN_FILE.",
        ),
        "missing": failed(
            "there is no file {pin_file}",
            f"Write the user PIN of the token into it (mode 0600), or set {PREFIX}PIN_FILE.",
        ),
        "unreadable": failed(
            "{pin_file} cannot be read by {user}",
            "Give the file to the user of the service: chown, then chmod 0600.",
        ),
        "empty": failed("{pin_file} holds no PIN", "Write the user PIN of the token into it."),
    },
    "pin_mode": {
        "": ok("mode {mode}, of {owner}"),
        "unknown": skipped("the PIN is not in a file"),
        "world": failed(
            "everybody on this machine may read or write {pin_file} (mode {mode})",
            "chmod 0600 {pin_file}; then change the PIN, for somebody may know it.",
        ),
        "group": warning(
            "the group {group} may read or write {pin_file} (mode {mode})",
            "chmod 0600 {pin_file}, unless the group is for the service alone.",
        ),
        "owner": warning(
            "{pin_file} belongs to {owner}, and this runs as {user}",
            "Its owner can change the PIN that is tried: chown {user} {pin_file}",
        ),
    },
    "boot_lock": {
        "": ok("no other process is opening the token"),
        "busy": failed(
            "another process has been opening the token for {seconds:g} s",
            "A worker hangs in the token. See its log; end it if it does not end by itself.",
        ),
    },
    "module": {
        "": ok("{path} is loaded and initialised"),
        "missing": failed(
            "there is no file {path}",
            f"Set {PREFIX}PKCS11_MODULE to the PKCS#11 library of your token. SoftHSM2's is often "
            "/usr/lib/softhsm/libsofthsm2.so.",
        ),
        "not_a_module": failed(
            "{path} is no PKCS#11 library for this machine",
            f"Set {PREFIX}PKCS11_MODULE to the library that the vendor names for PKCS#11, built "
            "for this processor. `ldd {path}` says whether it lacks others.",
        ),
        "error": failed(
            "the library does not initialise: {answer}",
            "It does not find its own configuration, or may not read it. For SoftHSM2 set "
            "SOFTHSM2_CONF; for others see the vendor's page on it.",
        ),
    },
    "token": {
        "": ok(
            "'{label}', serial {serial}: {token} {firmware_version}, by {library} {library_version}"
        ),
        "missing": failed(
            "no token with {wanted}; there: {there}",
            f"Set {PREFIX}TOKEN_LABEL to one that is there. If yours is not: is its configuration "
            "the one meant (SOFTHSM2_CONF), is the HSM connected, has the token been initialised?",
        ),
        "several": failed(
            "more than one token has {wanted}; there: {there}",
            f"Set {PREFIX}TOKEN_SERIAL, too. Where all have the same one, give them other labels.",
        ),
        "error": failed("the token does not show itself: {answer}", _IN_TROUBLE),
    },
    "flags": {
        "": ok("the token has a PIN, and all its tries"),
        "no_pin": failed(
            "the token has no user PIN yet",
            "Its security officer sets one: pkcs11-tool --init-pin, or the vendor's tool.",
        ),
        "locked": failed(
            "the token has locked the PIN",
            "Its security officer sets it anew. Put the new one into {pin_file}.",
        ),
        "final_try": failed(
            "the token allows one more try and then locks the PIN: it is not spent here",
            "Make sure that {pin_file} holds the right PIN, and log in with the vendor's tool "
            "once, which gives back all tries.",
        ),
        "to_be_changed": failed(
            "the token wants the PIN changed before it is used",
            "Change it with the vendor's tool (pkcs11-tool --change-pin), then in {pin_file}.",
        ),
        "count_low": warning(
            "somebody has tried a wrong PIN",
            "If {pin_file} holds the right one now, the login below clears this.",
        ),
        "write_protected": failed(
            "the token is write-protected", "No key can be made: see the vendor's tool."
        ),
    },
    "pin_latch": {
        "": ok("this PIN has not been refused"),
        "closed": failed(
            "this PIN has been refused before, and is not tried again",
            "Write the right PIN into {pin_file}: a changed PIN is tried by itself. If it is right "
            "and the token was mended, remove {latch}.",
        ),
        "error": failed(
            "it cannot be seen whether this PIN has been refused: {answer}",
            "Give {latch} to the user of the service.",
        ),
    },
    "login": {
        "": ok("logged in"),
        "refused": failed(
            "the token refuses the PIN; neither this nor the service tries it again",
            "Write the user PIN (not that of the security officer) into {pin_file}: a changed PIN "
            "is tried by itself.",
        ),
        "locked": failed(
            "the token has locked the PIN; neither this nor the service tries it again",
            "Its security officer sets it anew. Put the new one into {pin_file}.",
        ),
        "expired": failed(
            "the token wants a new PIN; neither this nor the service tries this one again",
            "Change it with the vendor's tool (pkcs11-tool --change-pin), then in {pin_file}.",
        ),
        "error": failed("no login: {answer}", _IN_TROUBLE),
    },
    "sessions": {
        "": ok("{number} opened at once, as {workers} workers need"),
        "too_few": failed(
            "{workers} workers need {number}; the token has {most}, of which {open} are open",
            f"Set {PREFIX}SESSIONS lower, or start fewer workers (WEB_CONCURRENCY).",
        ),
        "refused": failed(
            "{workers} workers need {number}; after {opened} the token answers {answer}",
            f"Set {PREFIX}SESSIONS lower, or start fewer workers (WEB_CONCURRENCY).",
        ),
    },
    "random": {
        "": ok("the token gives random bytes"),
        "constant": failed(
            "the random bytes of the token are not random",
            "Do not use this token: keys and IVs could be guessed. Ask its vendor.",
        ),
    },
    "canary": {
        "": ok("the canary is there and is used"),
        "absent": ok("keys are used; the service makes its canary at the first start"),
        "error": failed(
            "the token does not use a key of its own: {answer}",
            f"Without one the service does not start. {_IN_TROUBLE}",
        ),
        "unable": failed(
            "the token makes no key by which it could be watched: {answer}",
            "The service does not start without one: AES with GCM, HMAC with SHA-256, or a pair on "
            "P-256 or of RSA. Switch one of them on in the token.",
        ),
    },
    "proof": {
        "": ok("{offered} of {tried} algorithms are offered"),
        "none": failed("no algorithm works", _IN_TROUBLE),
    },
    "algorithm": {
        "": ok("agrees with {compared_with}"),
        "in_process": ok("agrees with {compared_with}; its CEKs pass through the process"),
        "not_imported": ok(
            "not provable by import: the token takes no keys ({answer}); a round trip is right"
        ),
        "no_example": ok("no RFC has an example; a round trip is right"),
        "switched_off": skipped("{reason}"),
        "rare": skipped("not offered: {reason}; few tokens have it yet"),
        "lacking": warning(
            "not offered: {reason}",
            "Nothing, if nobody needs it: requests that name it get 422. Else switch the mechanism "
            "on in the token (in softhsm2.conf: slots.mechanisms), or update the token.",
        ),
        "no_function": warning(
            "not offered: {reason}",
            "Nothing, if nobody needs it: requests that name it get 422. The token has not the "
            "function of PKCS#11 that it takes: no setting helps, only another version might.",
        ),
        "some_curves": warning(
            "agrees with {compared_with}; not offered on {curves}: {reason}",
            "Nothing, if nobody needs these curves: requests that name them get 422. Else update "
            "the token.",
        ),
        "needed": failed(
            "not offered, and keys of the registry are bound to it: {reason}",
            "These keys cannot be used. Switch the mechanism on in the token (in softhsm2.conf: "
            "slots.mechanisms) or the algorithm in the settings, or go back to the token that they "
            "were made for.",
        ),
        "wrong": failed(
            "the token gives a wrong result",
            "Do not use this token: ask its vendor, with this table.",
        ),
        "error": failed("wrong, or no answer: {answer}", "Do not use it: ask the token's vendor."),
    },
    "rate": {"": ok("{per_second:,g} a second"), "not_offered": skipped("{alg} is not offered")},
    "registry": {
        "": ok("schema {found}, {keys} keys"),
        "setting": failed("it is not looked for", "{reason}."),
        "missing": failed("there is no registry yet", "Run `jose-hsm migrate`."),
        "old": failed("schema {found}; this version needs {newest}", "Run `jose-hsm migrate`."),
        "future": failed(
            "schema {found} is from the future: this version knows {newest} at most",
            "A newer jose-hsm has written it: install that one. To restore an older backup, move "
            "the registry away first.",
        ),
        "schema": failed("its tables are not those of its schema", "Run `jose-hsm migrate`."),
        "permission": failed(
            "{user} may not read and write the registry",
            "Give the file and its directory to the user of the service, or its role the rights in "
            "the database; examine the installation as that user.",
        ),
        "registry": failed(
            "the registry does not answer",
            f"Is the database running, and {PREFIX}DATABASE_URL right? The log has its error.",
        ),
    },
    "owner": {
        "": ok("the token belongs to this registry"),
        "none": ok("the token belongs to no registry yet"),
        "another": failed(
            "the token belongs to another registry, {found}",
            f"Is {PREFIX}STATE_DIR mounted, and {PREFIX}DATABASE_URL right? If that registry is "
            "lost: `jose-hsm restore`. If this one is to be used as it is: `jose-hsm claim`.",
        ),
        "error": failed("not compared: {answer}", _IN_TROUBLE),
    },
    "audit_log": {
        "": ok("{path} can be written"),
        "off": warning("there is none", f"Unset {PREFIX}AUDIT_LOG to have one."),
        "not_writable": failed(
            "{path} cannot be written",
            "Without it every use of a key gets 503: give file and directory to the user of the "
            "service; or their disk is read-only.",
        ),
    },
    "keys": {
        "": ok("registry and token have the same {rows} keys"),
        "unknown": warning(
            "{rows} keys in the registry; {unknown} more on the token, which nobody can reach",
            "See `jose-hsm reconcile --dry-run`. Were they made after the backup that the registry "
            "is from? They are left alone.",
        ),
        "missing": failed(
            "{missing} of {rows} keys in the registry are not, or not wholly, on the token",
            "Requests with them get 503. Is it the right token? See `jose-hsm reconcile "
            "--dry-run`; restore the token's backup, or destroy these keys.",
        ),
        "error": failed("registry and token cannot be compared: {answer}", _IN_TROUBLE),
    },
    "keks": {
        "": ok("the token has what encrypts the {rows} keys that the registry keeps"),
        "none": failed(
            f"{PREFIX}STORAGE is wrapped, without a key-encryption key",
            "Run `jose-hsm kek create`, and start the service anew.",
        ),
        "missing": failed(
            "{rows} keys of the registry are encrypted under {keks}, which the token lacks",
            "Requests with them get 503. Restore the token's backup, or take the key over from "
            "another token that has it: `jose-hsm kek import --prepare`.",
        ),
        "error": failed("not compared: {answer}", _IN_TROUBLE),
    },
    "clock": {
        "": ok("{now}"),
        "behind": failed(
            "{now} is before {what} ({then})",
            "Set the clock, best by NTP: tokens, certificates and keys expire by it.",
        ),
        "set": warning(
            "the clock was set by {seconds:g} s while this ran",
            "Have NTP slew it: keys and tokens expire by it.",
        ),
        "token": warning(
            "the clock of the token differs by {seconds:g} s", "Set the clock that is wrong."
        ),
    },
}

ADVICE: Final = MappingProxyType(_ADVICE)
"""By step, and by the symptom of its finding."""
