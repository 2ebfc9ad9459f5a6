"""What to paste to send a first event, by platform. Tests paste each that can be run here."""

from typing import Final, NamedTuple


class Snippet(NamedTuple):
    """`template` has {key}, {url} and {currency}; `note` says where it goes."""

    platform: str
    note: str
    template: str


HTML: Final = "Website: HTML"
_ORDER: Final = '"Order Completed", {{"order_id": "o-1", "revenue": 42.10, "currency": "{currency}"}}'
_NODE_ORDER: Final = """{{
  userId: "u-1", event: "Order Completed",
  properties: {{ order_id: "o-1", revenue: 42.10, currency: "{currency}" }},
}}"""

SNIPPETS: Final = (
    Snippet(
        HTML,
        "into the <head> of every page; it loads Segment's analytics.js from this server and sends the page view",
        """<script>
  (function (w, key, door) {{
    var a = (w.analytics = w.analytics || []);
    if (a.invoked || a.initialize) return;
    a.invoked = true;
    a._writeKey = key;
    a._cdn = door;
    ["identify", "track", "page", "screen", "group", "alias", "reset", "ready", "on", "once", "off", "register",
     "setAnonymousId", "addSourceMiddleware", "trackLink", "trackForm"].forEach(function (method) {{
      a[method] = function () {{
        if (w.analytics.initialized) return w.analytics[method].apply(w.analytics, arguments);
        a.push([method].concat([].slice.call(arguments)));
        return a;
      }};
    }});
    var script = document.createElement("script");
    script.async = true;
    script.src = door + "/analytics.js/v1/" + key + "/analytics.min.js";
    document.head.appendChild(script);
    a.page();
  }})(window, "{key}", "{url}");
</script>
<!-- then, anywhere: analytics.identify("u-1", {{ email: "…" }}); analytics.track("Signed Up"); -->""",
    ),
    Snippet(
        "Website: Segment (npm)",
        "npm install @segment/analytics-next",
        """import {{ AnalyticsBrowser }} from "@segment/analytics-next";

export const analytics = AnalyticsBrowser.load({{ writeKey: "{key}", cdnURL: "{url}" }});
analytics.page();""",
    ),
    Snippet(
        "Website: RudderStack (npm)",
        "npm install @rudderstack/analytics-js",
        """import {{ RudderAnalytics }} from "@rudderstack/analytics-js/bundled";

export const analytics = new RudderAnalytics();
analytics.load("{key}", "{url}", {{ configUrl: "{url}" }});
analytics.page();""",
    ),
    Snippet(
        "Website or Node: Jitsu (npm)",
        "npm install @jitsu/js; its keys have two parts, of which the second is this source's",
        """import {{ jitsuAnalytics }} from "@jitsu/js";

export const analytics = jitsuAnalytics({{ host: "{url}", writeKey: "touchfold:{key}" }});
analytics.page();""",
    ),
    Snippet(
        "Website: no library",
        "a page view by itself, without a script of anybody",
        """<script>
  function touchfold(call, body) {{
    body.anonymousId = localStorage.tf_id = localStorage.tf_id || crypto.randomUUID();
    body.writeKey = "{key}";
    body.context = {{ page: {{ path: location.pathname, url: location.href }} }};
    navigator.sendBeacon("{url}/v1/" + call, JSON.stringify(body));
  }}
  touchfold("page", {{ properties: {{ title: document.title, path: location.pathname }} }});
</script>""",
    ),
    Snippet(
        "Node: Segment",
        "npm install @segment/analytics-node",
        """import {{ Analytics }} from "@segment/analytics-node";

const analytics = new Analytics({{ writeKey: "{key}", host: "{url}" }});
analytics.track("""
        + _NODE_ORDER
        + """);
await analytics.closeAndFlush();""",
    ),
    Snippet(
        "Node: RudderStack",
        "npm install @rudderstack/rudder-sdk-node; with its own 3 retries a restart of this server loses events",
        """import RudderAnalytics from "@rudderstack/rudder-sdk-node";

const analytics = new RudderAnalytics("{key}", {{ dataPlaneUrl: "{url}", retryCount: 10 }});
analytics.track("""
        + _NODE_ORDER
        + """);
await analytics.flush();""",
    ),
    Snippet(
        "Python: Segment",
        "pip install segment-analytics-python",
        """import segment.analytics as analytics

analytics.write_key = "{key}"
analytics.host = "{url}"
analytics.track("u-1", """
        + _ORDER
        + """)
analytics.shutdown()""",
    ),
    Snippet(
        "Python: RudderStack",
        "pip install rudder-sdk-python",
        """import rudderstack.analytics as analytics

analytics.write_key = "{key}"
analytics.dataPlaneUrl = "{url}"
analytics.track("u-1", """
        + _ORDER
        + """)
analytics.shutdown()""",
    ),
    Snippet(
        "Go: Segment",
        "go get github.com/segmentio/analytics-go/v3",
        """client, _ := analytics.NewWithConfig("{key}", analytics.Config{{Endpoint: "{url}"}})
client.Enqueue(analytics.Track{{
	UserId: "u-1", Event: "Order Completed",
	Properties: analytics.NewProperties().SetOrderId("o-1").SetRevenue(42.10).SetCurrency("{currency}"),
}})
client.Close()""",
    ),
    Snippet(
        "E-mail: image",
        "into the HTML of a mail; put the customer's id for u-1",
        '<img src="{url}/v1/pixel/track?writeKey={key}&userId=u-1&event=Email%20Opened&properties.email_id=spring" '
        'alt="" width="1" height="1">',
    ),
    Snippet(
        "curl",
        "any language: a POST with JSON",
        """curl -u {key}: {url}/v1/track -H 'Content-Type: application/json' -d '{{
  "userId": "u-1", "event": "Order Completed",
  "properties": {{"order_id": "o-1", "revenue": 42.10, "currency": "{currency}"}}
}}'""",
    ),
)
PLATFORMS: Final = tuple(each.platform for each in SNIPPETS)


def snippet(platform: str, key: str, url: str, currency: str) -> str:
    """What to paste for a platform."""
    found = next(each for each in SNIPPETS if each.platform == platform)
    return found.template.format(key=key, url=url, currency=currency)


def note_of(platform: str) -> str:
    return next(each.note for each in SNIPPETS if each.platform == platform)
