package image

import "github.com/kopia/kopia/repo/blob"

// WithDecorator makes a repository's storage go through a decorator.
func WithDecorator(o Options, decorate func(blob.Storage) blob.Storage) Options {
	o.decorate = decorate
	return o
}

// WithFastPassword creates repositories with a key derivation that takes far less time than scrypt under the race detector.
func WithFastPassword(o Options) Options {
	o.keyDerivation = "pbkdf2-sha256-600000"
	return o
}
