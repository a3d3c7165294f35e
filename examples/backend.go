// A backend in Go that sends a message to a device. It needs no module.
//
//	go run examples/backend.go bob phone 'hello'
//
// SIGNAL_URL is the address of the daemon. SIGNAL_TOKEN is a token of the backend; a daemon with --dev needs none.
package main

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	path := "/user/" + url.PathEscape(os.Args[1]) + "/device/" + url.PathEscape(os.Args[2])
	form := strings.NewReader(url.Values{"event": {"greeting"}, "data": {os.Args[3]}}.Encode())
	request, err := http.NewRequest("POST", cmp.Or(os.Getenv("SIGNAL_URL"), "http://localhost:1837")+path, form)
	if err != nil {
		log.Fatal(err)
	}
	request.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Ttl": {"30"}}
	if token := os.Getenv("SIGNAL_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		log.Fatal(err)
	}
	// 200: delivered. 202: the device is away, and gets the message if it connects within 30 s. 429, 503: try again after Retry-After.
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode > 202 {
		log.Fatalf("%d: %s", answer.StatusCode, text)
	}
	fmt.Println(map[int]string{200: "delivered", 202: "held"}[answer.StatusCode])
}
