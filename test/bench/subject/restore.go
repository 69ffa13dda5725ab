package main

import (
	"context"
	"errors"
	"os"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
)

func restore(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("restore: want a repository, an image and a target")
	}
	return with(ctx, args[0], image.Options{}, func(r *image.Repository) (err error) {
		found, err := r.Image(ctx, args[1])
		if err != nil {
			return err
		}
		source, err := found.Disk(ctx, key)
		if err != nil {
			return err
		}
		file, err := os.Create(args[2])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		target, err := recovery.Create(file, recovery.Raw, source.Record(), uuid.Nil)
		if err != nil {
			return err
		}
		job := recovery.Copy{Source: source, Target: target}
		return errors.Join(job.Run(ctx), target.Close())
	})
}
