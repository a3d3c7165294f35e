// A backend in Java 11 or newer that sends a message to a device. It needs no library.
//
//     java examples/Backend.java bob phone 'hello'
//
// SIGNAL_URL is the address of the daemon. SIGNAL_TOKEN is a token of the backend; a daemon with --dev needs none.

import java.net.URI;
import java.net.URLEncoder;
import java.net.http.*;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;

class Backend {
    /** Gives "delivered", or "held" when the device is away: it gets the message if it connects within 30 s. */
    static String send(String user, String device, String event, String data) throws Exception {
        var env = System.getenv();
        var server = env.getOrDefault("SIGNAL_URL", "http://localhost:1837");
        // A form needs no library for JSON. A space is `+` in it, but %20 in a path.
        var path = "/user/" + encode(user).replace("+", "%20") + "/device/" + encode(device).replace("+", "%20");
        var form = HttpRequest.BodyPublishers.ofString("event=" + encode(event) + "&data=" + encode(data));
        var request = HttpRequest.newBuilder(URI.create(server + path)).timeout(Duration.ofSeconds(10)).POST(form)
            .header("content-type", "application/x-www-form-urlencoded").header("ttl", "30");
        if (env.containsKey("SIGNAL_TOKEN")) request.header("authorization", "Bearer " + env.get("SIGNAL_TOKEN"));
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var answer = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
        // After 429 and 503 it is worth trying again, in as many seconds as the header Retry-After says.
        if (answer.statusCode() > 202) throw new IllegalStateException(answer.statusCode() + ": " + answer.body());
        return answer.statusCode() == 200 ? "delivered" : "held";
    }

    static String encode(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8);
    }

    public static void main(String[] words) throws Exception {
        System.out.println(send(words[0], words[1], "greeting", words[2]));
    }
}
