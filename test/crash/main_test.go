// Package crash kills processes with SIGKILL, before and after each effect of a backup, and looks for what must not be: an image that is lost, published
// twice or not equal to what the guest had, a checkpoint or a merge that is left on the host, an object that is stuck.
//
// The programs are the real ones, unchanged. Relays stand between them and the API server, the host and the repository's store: what passes through them
// are the effects, which are numbered and counted.
package crash

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/test/controlplane"
	"github.com/hyperkeep/hyperkeep/test/site"
	"github.com/hyperkeep/hyperkeep/test/tool"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

// everything says whether all points are tried, or a share that fits into CI's time.
var everything = os.Getenv("HYPERKEEP_SOAK") != ""

// world is the site of all tests, with the taps on the ways to and from its processes, by their names.
type world struct {
	dir  string
	site *site.Site

	mu      sync.Mutex
	taps    map[string]*tap
	servers []*httptest.Server
	shims   []net.Listener
}

var shared struct {
	once  sync.Once
	world *world
	err   error
}

// lanes is how many tests run at once: more than there are cores, because they mostly wait for processes to come back.
const lanes = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", lanes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if shared.world != nil {
		if err := shared.world.close(); err != nil {
			fmt.Fprintln(os.Stderr, "a process did not live until the end:", err)
			code = 1
		}
		if code == 0 {
			_ = os.RemoveAll(shared.world.dir)
		} else {
			fmt.Fprintln(os.Stderr, "logs are in", filepath.Join(shared.world.dir, "logs"))
		}
	}
	os.Exit(code)
}

// startTimeout bounds compiling the programs and starting the site.
const startTimeout = 15 * time.Minute

func theWorld(t *testing.T) *world {
	t.Helper()
	tool.Require(t, "qemu-img")
	if wine.OnWindows() {
		wine.Require(t)
	}
	shared.once.Do(func() { shared.world, shared.err = newWorld() })
	var missing *controlplane.MissingBinaryError
	if errors.As(shared.err, &missing) && os.Getenv("CI") == "" {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.world
}

func newWorld() (*world, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "hyperkeep-crash-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, taps: map[string]*tap{}}
	binaries, err := site.Build(ctx, filepath.Join(dir, "bin"), os.Stderr)
	if err != nil {
		return w, err
	}
	options := site.Options{
		Dir: dir, Binaries: binaries, APIServer: w.relayToAPIServer, HostAddress: w.relayToHost,
		HostArgs:   []string{"--inventory-interval", "500ms", "--inventory-resync", "5s", "--lease-duration", "4s", "--sweep-interval", "1s"},
		KeeperArgs: []string{"--lease-duration", "4s"},
	}
	if wine.OnWindows() {
		if err := wine.UseAgent(ctx, &options); err != nil {
			return w, err
		}
	}
	w.site, err = site.Start(ctx, options)
	return w, err
}

func (w *world) close() error {
	var err error
	if w.site != nil {
		err = w.site.Stop()
	}
	for _, server := range w.servers {
		server.CloseClientConnections()
		server.Close()
	}
	for _, listener := range w.shims {
		err = errors.Join(err, listener.Close())
	}
	return err
}

// serve puts a relay behind a server and remembers it under a name.
func (w *world) serve(name string, r *relay, configure func(*httptest.Server)) *httptest.Server {
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = quiet()
	configure(server)
	if server.TLS != nil {
		server.StartTLS()
	} else {
		server.Start()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taps[name], w.servers = &r.tap, append(w.servers, server)
	return server
}

func (w *world) tap(name string) *tap {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taps[name]
}

// relayToAPIServer implements site.Options.APIServer.
func (w *world) relayToAPIServer(process, address string) string {
	certificate, key := filepath.Join(w.dir, "controlplane", "apiserver.crt"), filepath.Join(w.dir, "controlplane", "apiserver.key")
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		panic(err) // the control plane has just written it
	}
	ca, err := os.ReadFile(certificate)
	if err != nil {
		panic(err)
	}
	// With the API server's own certificate, for a client sends its token to nobody else.
	r := newRelay(address, toAPIServer(ca), apiEffect)
	r.limit("/namespaces/")
	return w.serve("api of "+process, r, func(server *httptest.Server) {
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}).URL
}

// relayToHost implements site.Options.HostAddress.
func (w *world) relayToHost(host, address string) string {
	if wine.OnWindows() {
		return w.relayToShims(host, address)
	}
	path := filepath.Join(w.dir, host+".sock")
	w.serve("host "+host, newRelay("http://host", toSocket(address), hostEffect), func(server *httptest.Server) {
		server.Listener.Close()
		server.Listener = listen("unix", path)
	})
	return path
}

func (w *world) relayToShims(host, address string) string {
	r, listener := &shimRelay{host: address}, listen("tcp4", "127.0.0.1:0")
	go r.serve(listener)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taps["host "+host], w.shims = &r.tap, append(w.shims, listener)
	return listener.Addr().String()
}

// relayToStore returns the address of a server that stands before another HTTP handler.
func (w *world) relayToStore(name string, store http.Handler) string {
	behind := httptest.NewServer(store)
	w.mu.Lock()
	w.servers = append(w.servers, behind)
	w.mu.Unlock()
	return w.serve("store of "+name, newRelay(behind.URL, http.DefaultTransport, storeEffect), func(*httptest.Server) {}).URL
}
