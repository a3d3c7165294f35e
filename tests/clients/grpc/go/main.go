// A shell around grpc-go. ../python/client.py documents what it reads and writes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	_ "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	signalv1 "example.org/clients/backend_signal/v1"
)

type command struct {
	ID       int
	Base     string
	Method   string
	Requests []json.RawMessage
	Metadata map[string]string
	Compress bool
}

func (c command) run(connection *grpc.ClientConn, emit func(proto.Message)) error {
	name := protoreflect.FullName(strings.ReplaceAll(c.Method, "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return err
	}
	method := found.(protoreflect.MethodDescriptor)
	input, _ := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	output, _ := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	kind := grpc.StreamDesc{ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer()}
	context := metadata.NewOutgoingContext(context.Background(), metadata.New(c.Metadata))
	options := []grpc.CallOption{}
	if c.Compress {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	stream, err := connection.NewStream(context, &kind, "/"+c.Method, options...)
	if err != nil {
		return err
	}
	for _, request := range c.Requests {
		message := input.New().Interface()
		if err := protojson.Unmarshal(request, message); err != nil {
			return err
		}
		// io.EOF: the call has ended, and RecvMsg says how.
		if err := stream.SendMsg(message); err != nil && err != io.EOF {
			return err
		}
	}
	stream.CloseSend()
	for {
		response := output.New().Interface()
		if err := stream.RecvMsg(response); err != nil {
			return err
		}
		emit(response)
		if !kind.ServerStreams {
			return io.EOF
		}
	}
}

func main() {
	ready := &signalv1.Ready{Address: (&signalv1.Message{Sender: &signalv1.Address{User: "bob"}}).GetSender()}
	if ready.GetAddress().GetUser() != "bob" {
		panic(ready)
	}
	connections := map[string]*grpc.ClientConn{}
	lines := bufio.NewReader(os.Stdin)
	for line, err := lines.ReadBytes('\n'); err == nil; line, err = lines.ReadBytes('\n') {
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			panic(err)
		}
		connection := connections[c.Base]
		if connection == nil {
			target := strings.TrimPrefix(c.Base, "http://")
			connection, err = grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				panic(err)
			}
			connections[c.Base] = connection
		}
		go func() {
			write := func(line any) {
				encoded, _ := json.Marshal(line)
				fmt.Printf("%s\n", encoded)
			}
			err := c.run(connection, func(response proto.Message) {
				encoded, _ := protojson.Marshal(response)
				write(map[string]any{"id": c.ID, "message": json.RawMessage(encoded)})
			})
			end := status.Convert(err)
			if err == io.EOF {
				end = status.New(0, "")
			}
			write(map[string]any{"id": c.ID, "code": end.Code(), "text": end.Message()})
		}()
	}
}
