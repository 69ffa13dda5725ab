package crash

import (
	"io"
	"log"
	"net"
)

// quiet is a log for what is expected here all the time: connections that are cut.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func listen(network, address string) net.Listener {
	listener, err := net.Listen(network, address)
	if err != nil {
		panic(err) // a fresh path in the tests' own folder, or a free port
	}
	return listener
}
