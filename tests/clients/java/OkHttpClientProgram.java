// okhttp-sse, with the code of docs/clients.md, which tests/clients/run puts into the class `SignalStream`.

import okhttp3.OkHttpClient;
import okhttp3.Request;

class OkHttpClientProgram {
    public static void main(String[] arguments) {
        var claim = System.getenv("CLAIM");
        var request = new Request.Builder().url(System.getenv("URL"));
        if (!claim.isEmpty()) request.header("X-User-Claim", claim);
        // The client has no read time-out of its own, to see what OkHttp does.
        new SignalStream(new OkHttpClient(), request.build()) {
            @Override void event(String name, String data, String id) {
                show("{\"event\":%s,\"data\":%s,\"id\":%s}", quote(name), quote(data), quote(id == null ? "" : id));
            }

            @Override void refused(int status, String text) {
                show("{\"error\":true,\"code\":%s,\"text\":%s}", status, quote(text));
                System.exit(0);
            }
        }.open();
    }

    static void show(String format, Object... values) { System.out.println(String.format(format, values)); }

    static String quote(String text) {
        if (text == null) return "null";
        var json = new StringBuilder("\"");
        text.chars().forEach(unit -> json.append(unit < ' ' || unit == '"' || unit == '\\' || unit > '~'
            ? String.format("\\u%04x", unit) : String.valueOf((char) unit)));
        return json.append('"').toString();
    }
}
