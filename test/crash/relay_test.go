package crash

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
)

// relay stands between a process and one of the places where the process has effects: the API server, the Hyper-V host, the repository's store. It passes
// everything on, and tells the effects.
type relay struct {
	tap
	proxy *httputil.ReverseProxy
	// effect names the effect of a request, "" for one that has none.
	effect func(*http.Request) string
}

// newRelay passes requests on to target. Answers are passed on as they come, for watches never end.
func newRelay(target string, transport http.RoundTripper, effect func(*http.Request) string) *relay {
	address, err := url.Parse(target)
	if err != nil {
		panic(err) // the address of a server of this test
	}
	return &relay{effect: effect, proxy: &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      quiet(),
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(address); r.Out.Host = r.In.Host },
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
}

func (r *relay) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	told, name := r.listener(request.URL.Path), ""
	if told != nil {
		name = r.effect(request)
	}
	if name == "" {
		r.proxy.ServeHTTP(w, request)
		return
	}
	answer := httptest.NewRecorder()
	if !told.pass(name, func() { r.proxy.ServeHTTP(answer, request.WithContext(context.WithoutCancel(request.Context()))) }) {
		panic(http.ErrAbortHandler)
	}
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the process may be gone
}

// apiEffect names writes to the API server by verb and resource, such as "PATCH agenttasks/status". What happens all the time, whether there is a backup
// or not, is left out.
func apiEffect(r *http.Request) string {
	if r.Method == http.MethodGet {
		return ""
	}
	if name, found := resourceOf(r.URL.Path); found {
		return "API server: " + r.Method + " " + name
	}
	return ""
}

// resources are those that a backup is made of.
var resources = []string{"agenttasks", "backupjobs", "backupimages"}

func resourceOf(path string) (string, bool) {
	for _, resource := range resources {
		if _, rest, found := strings.Cut(path, "/"+resource); found {
			if strings.HasSuffix(rest, "/status") {
				return resource + "/status", true
			}
			return resource, true
		}
	}
	return "", false
}

// hostEffect names the calls of WMI methods, and the switching on of change tracking.
func hostEffect(r *http.Request) string {
	switch r.URL.Path {
	case "/virtdisk/track":
		return "host: enable change tracking"
	case "/wmi/invoke":
	default:
		return ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var call struct {
		Method string `json:"method"`
	}
	if json.Unmarshal(body, &call) != nil || onlyTells(call.Method) {
		return ""
	}
	return "host: " + call.Method
}

// onlyTells says whether a WMI method changes nothing.
func onlyTells(method string) bool { return strings.HasPrefix(method, "Get") }

// storeEffect names writes by the first letter of the blob's name, which is its kind: data, index, manifest and so on.
func storeEffect(r *http.Request) string {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return ""
	}
	return "store: " + r.Method + " " + filepath.Base(r.URL.Path)[:1]
}

// toAPIServer is a transport for the API server's address and certificate.
func toAPIServer(ca []byte) http.RoundTripper {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 64}
}

// toSocket is a transport to whoever serves a unix socket.
func toSocket(socket string) http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}
}
