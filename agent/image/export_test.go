package image

import "github.com/kopia/kopia/repo/blob"

// WithDecorator makes a repository's storage go through a decorator.
func WithDecorator(o Options, decorate func(blob.Storage) blob.Storage) Options {
	o.decorate = decorate
	return o
}
