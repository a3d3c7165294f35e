"""What schemathesis must know about the daemon and OpenAPI cannot say."""

from urllib.parse import parse_qsl, urlsplit

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    """JSON Schema counts the characters of an id, the daemon counts bytes."""
    values = [*(case.path_parameters or {}).values(), *(case.query or {}).values()]
    ids = [one for value in values for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return not any(len(one) <= 256 < len(one.encode(errors="replace")) for one in ids)


@schemathesis.hook
def before_call(context, case, kwargs):
    """A request names the device, and with `--auth none` the user, in one place: two that differ are refused."""
    headers, query = case.headers or {}, case.query or {}
    if "/subscribe/" in case.operation.path:
        query.pop("user", None)
        query.pop("device", None)
    if "/subscribe/" in case.operation.path or query.get("device"):
        headers.pop("X-Signal-Device", None)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether a failure is one. These are not, because the daemon promises to be lenient:"""
    if failure.kind_title == "Schema-valid request rejected":
        # A stream needs a device, which the identity or one of three places of the request names.
        return b'"no_device"' not in response.content
    if failure.kind_title == "Schema-violating request accepted":
        names = [name for name, _ in parse_qsl(urlsplit(response.request.url).query, keep_blank_values=True)]
        # A heartbeat out of its bounds is moved to the nearest one, and one that is no number is ignored. So is a parameter that
        # stands in a query twice; but a user is listed once, however often the query names it.
        return "`heartbeat`" not in failure.message and len(names) == len(set(names))
    return True
