// r3labs/sse, with a loop around it, because the library reconnects after an error but not after a clean end.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

func show(line map[string]any) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func main() {
	defaults := os.Getenv("DEFAULTS") != ""
	client := sse.NewClient(os.Getenv("URL"))
	if !defaults {
		// The default is 64 KiB: a larger message ends the stream, again and again.
		sse.ClientMaxBufferSize(1 << 20)(client)
		// Without this the library repeats a refused request by itself.
		client.ReconnectStrategy = &backoff.StopBackOff{}
	}
	if claim := os.Getenv("CLAIM"); claim != "" {
		client.Headers["X-User-Claim"] = claim
	}
	refused := false
	client.ResponseValidator = func(_ *sse.Client, response *http.Response) error {
		if response.StatusCode == http.StatusOK {
			return nil
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		show(map[string]any{"error": true, "code": response.StatusCode, "text": string(text)})
		refused = response.StatusCode < 500
		return fmt.Errorf("status %d", response.StatusCode)
	}
	delay := time.Second
	for !refused {
		err := client.SubscribeRaw(func(event *sse.Event) {
			if retry, err := strconv.Atoi(string(event.Retry)); err == nil {
				delay = time.Duration(retry) * time.Millisecond
			}
			show(map[string]any{"event": string(event.Event), "data": string(event.Data), "id": string(event.ID)})
		})
		if err != nil {
			show(map[string]any{"error": true, "code": nil, "text": err.Error()})
		}
		time.Sleep(delay)
	}
}
