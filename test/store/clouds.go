package store

import (
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	gcsclient "cloud.google.com/go/storage"
	"google.golang.org/api/option"
)

// The account that azurite has, with the key that its documentation gives.
const (
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// Azure is a container of a running azurite.
type Azure struct {
	tb        testing.TB
	Address   string // host:port
	Container string // as the path of its address has it, the account in front
	client    *container.Client
}

// StartAzure starts a store with one container, for the length of a test.
func StartAzure(tb testing.TB, name string) *Azure {
	tb.Helper()
	main := program(tb, "azurite", "node_modules", "azurite", "dist", "src", "blob", "main.js")
	a := &Azure{tb: tb, Address: freeAddress(tb), Container: azureAccount + "/" + name}
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		tb.Fatal(err)
	}
	start(tb, a.Address, "node", main, "--blobHost", host, "--blobPort", port, "--location", tb.TempDir(), "--silent", "--skipApiVersionCheck", "--disableTelemetry")
	key, err := container.NewSharedKeyCredential(azureAccount, azureKey)
	if err == nil {
		a.client, err = container.NewClientWithSharedKeyCredential("http://"+a.Address+"/"+a.Container, key, nil)
	}
	if err == nil {
		_, err = a.client.Create(tb.Context(), nil)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// Token signs an hour of access to the container.
func (a *Azure) Token(may sas.ContainerPermissions) string {
	a.tb.Helper()
	signed, err := a.client.GetSASURL(may, time.Now().Add(time.Hour), nil)
	if err != nil {
		a.tb.Fatal(err)
	}
	u, err := url.Parse(signed)
	if err != nil {
		a.tb.Fatal(err)
	}
	return u.RawQuery
}

// StartGCS starts a Google Cloud Storage with one bucket, for the length of a test, and points Google's client library at it.
func StartGCS(t *testing.T, bucket string) {
	t.Helper()
	fake := program(t, "fake-gcs-server")
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	start(t, address, fake, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host", address, "-external-url", "http://"+address)
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	client, err := gcsclient.NewClient(t.Context(), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Bucket(bucket).Create(t.Context(), "test", nil); err != nil {
		t.Fatal(err)
	}
}
