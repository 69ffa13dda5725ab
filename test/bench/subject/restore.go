package main

import (
	"context"
	"errors"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
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
		target, err := os.Create(args[2])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, target.Close()) }()
		if err := target.Truncate(source.Size()); err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(runtime.GOMAXPROCS(0))
		for at := int64(0); at < source.Size() && ctx.Err() == nil; at += image.SegmentSize {
			group.Go(func() error {
				return copyWindow(source, target, extent.Extent{Offset: at, Length: image.SegmentSize})
			})
		}
		return group.Wait()
	})
}

func copyWindow(source *image.DiskReader, target *os.File, window extent.Extent) error {
	buffer := make([]byte, image.LeafSize)
	for e, err := range source.Data(window) {
		if err != nil {
			return err
		}
		for at := e.Offset; at < e.End(); at += image.LeafSize {
			piece := buffer[:min(image.LeafSize, e.End()-at)]
			if _, err := source.ReadAt(piece, at); err != nil {
				return err
			}
			if _, err := target.WriteAt(piece, at); err != nil {
				return err
			}
		}
	}
	return nil
}
