package storage

import (
	"context"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	azureblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/kopia/kopia/repo/blob"
	kopiaazure "github.com/kopia/kopia/repo/blob/azure"
)

// AzureLocation is a repository in a container of Azure Blob Storage.
type AzureLocation struct {
	Account   string
	Container string // has to exist
	Prefix    string // of every blob, usually ending in a slash; may be empty
	Domain    string // blob.core.windows.net when empty
	Insecure  bool   // plain HTTP
	SASToken  string // without a question mark in front
}

// String names the container, without the token.
func (a AzureLocation) String() string {
	return "azure://" + a.Container + "/" + a.Prefix + " at " + a.host()
}

// GoString keeps the token out of %#v.
func (a AzureLocation) GoString() string { return a.String() }

func (a AzureLocation) host() string {
	if a.Domain == "" {
		return a.Account + ".blob.core.windows.net"
	}
	return a.Account + "." + a.Domain
}

// azureContainer is a blob store in a container. Kopia's provider does all but create without overwriting.
type azureContainer struct {
	blob.Storage
	client *container.Client
	at     AzureLocation
	now    func() time.Time
}

func openAzure(ctx context.Context, l AzureLocation, now func() time.Time) (place, error) {
	switch {
	case l.Account == "" || l.Container == "":
		return nil, newError("open container", ErrNotUsable, "an account and a container are needed")
	case l.SASToken == "":
		return nil, newError("open container", ErrAccessDenied, "a shared access signature is needed")
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	stock, err := kopiaazure.New(probe, &kopiaazure.Options{
		Container: l.Container, Prefix: l.Prefix, StorageAccount: l.Account, SASToken: l.SASToken, StorageDomain: l.Domain, DoNotUseTLS: l.Insecure,
	}, false)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case probe.Err() != nil:
		return nil, newError("open container", ErrUnreachable, "no answer within "+probeTimeout.String())
	case err != nil:
		return nil, err
	}
	scheme := "https://"
	if l.Insecure {
		scheme = "http://"
	}
	client, err := azblob.NewClientWithNoCredential(scheme+l.host()+"?"+l.SASToken, nil)
	if err != nil {
		return nil, newError("open container", ErrNotUsable, "the account or the domain cannot be part of an address")
	}
	return &azureContainer{Storage: stock, client: client.ServiceClient().NewContainerClient(l.Container), at: l, now: now}, nil
}

// PutBlob stores a blob. With DoNotRecreate it never replaces one: the store decides (If-None-Match), not a look before.
func (a *azureContainer) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if !opts.DoNotRecreate || !opts.SetModTime.IsZero() {
		return a.Storage.PutBlob(ctx, id, data, opts)
	}
	upload := &blockblob.UploadOptions{AccessConditions: &azureblob.AccessConditions{
		ModifiedAccessConditions: &azureblob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)},
	}}
	if opts.HasRetentionOptions() {
		upload.ImmutabilityPolicyMode = to.Ptr(azureblob.ImmutabilityPolicySettingLocked)
		upload.ImmutabilityPolicyExpiryTime = to.Ptr(a.now().Add(opts.RetentionPeriod).UTC())
	}
	done, err := a.client.NewBlockBlobClient(a.at.Prefix+string(id)).Upload(ctx, data.Reader(), upload)
	switch {
	case bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet):
		return blob.ErrBlobAlreadyExists
	case err == nil && opts.GetModTime != nil:
		*opts.GetModTime = *done.LastModified
	}
	return err
}

// lockable asks the container whether single versions in it can be locked. Only a signature of the account may ask, one of the container may not.
func (a *azureContainer) lockable(ctx context.Context) error {
	found, err := a.client.GetProperties(ctx, nil)
	if bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch) {
		return newError("look for version-level immutability", ErrNoLock, "the keeper's signature may not ask: make one of the account")
	}
	if err != nil {
		return translate("look for version-level immutability", err)
	}
	if found.IsImmutableStorageWithVersioningEnabled == nil || !*found.IsImmutableStorageWithVersioningEnabled {
		return newError("look for version-level immutability", ErrNoLock, "the container was made without it")
	}
	return nil
}

func (*azureContainer) durableNames() (bool, error) { return true, nil }

func (a *azureContainer) lockedUntil(ctx context.Context, id blob.ID) (time.Time, error) {
	found, err := a.client.NewBlobClient(a.at.Prefix+string(id)).GetProperties(ctx, nil)
	switch {
	case bloberror.HasCode(err, bloberror.BlobNotFound):
		return time.Time{}, blob.ErrBlobNotFound
	case err != nil || found.ImmutabilityPolicyExpiresOn == nil:
		return time.Time{}, err
	}
	return *found.ImmutabilityPolicyExpiresOn, nil
}

// classifyAzure keeps the code of an answer and drops its body.
func classifyAzure(response *azcore.ResponseError) (detail string, kind error) {
	detail = http.StatusText(response.StatusCode)
	if codeWord.MatchString(response.ErrorCode) {
		detail = response.ErrorCode
	}
	switch {
	case response.ErrorCode == string(bloberror.ContainerNotFound):
		return detail, ErrNotUsable
	case response.StatusCode == http.StatusUnauthorized, response.StatusCode == http.StatusForbidden:
		return detail, ErrAccessDenied
	}
	return detail, ErrUnreachable
}
