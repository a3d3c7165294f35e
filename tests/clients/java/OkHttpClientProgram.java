// okhttp-sse, with a loop that reconnects.

import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

class OkHttpClientProgram {
    static volatile String cursor = "";
    static volatile boolean refused = false;

    public static void main(String[] arguments) throws InterruptedException {
        var factory = EventSources.createFactory(new OkHttpClient());
        var claim = System.getenv("CLAIM");
        while (!refused) {
            var request = new Request.Builder().url(System.getenv("URL"));
            if (!claim.isEmpty()) request.header("X-User-Claim", claim);
            if (!cursor.isEmpty()) request.header("Last-Event-ID", cursor);
            var ended = new CountDownLatch(1);
            factory.newEventSource(request.build(), new Listener(ended));
            ended.await();
            // The library does not hand over `retry`.
            Thread.sleep(2000);
        }
        System.exit(0);
    }

    static class Listener extends EventSourceListener {
        private final CountDownLatch ended;

        Listener(CountDownLatch ended) { this.ended = ended; }

        @Override public void onEvent(EventSource source, String id, String type, String data) {
            if (id != null) cursor = id;
            show("{\"event\":%s,\"data\":%s,\"id\":%s}", quote(type), quote(data), quote(id == null ? "" : id));
        }

        @Override public void onClosed(EventSource source) { ended.countDown(); }

        @Override public void onFailure(EventSource source, Throwable failure, Response response) {
            try {
                // 204 and 4xx are final. A stream that was cut also has a response; its status is 200.
                refused = response != null && response.code() != 200 && response.code() < 500;
                var text = refused ? response.body().string() : String.valueOf(failure);
                show("{\"error\":true,\"code\":%s,\"text\":%s}", refused ? response.code() : "null", quote(text));
            } catch (IOException error) {
                show("{\"error\":true,\"code\":null,\"text\":%s}", quote(error.toString()));
            }
            ended.countDown();
        }
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
