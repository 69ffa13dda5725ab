package storage

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

const mib = 1 << 20

func TestBandwidthIsBoundedByTheHourOfTheDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBandwidth(time.Now)
		took := func(n int64) time.Duration {
			before := time.Now()
			if err := b.Wait(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			return time.Since(before).Round(time.Second)
		}
		if got := took(1 << 40); got != 0 || b.Limited() != 0 {
			t.Errorf("without a limit: %s", got)
		}
		b.Limit(func(time.Time) int64 { return mib })
		if got := took(60 * mib); got != time.Minute {
			t.Errorf("60 MiB at 1 MiB/s took %s", got)
		}
		edge := time.Now().Add(10 * time.Second)
		b.Limit(func(now time.Time) int64 {
			if now.Before(edge) {
				return mib
			}
			return 5 * mib
		})
		if got := took(60 * mib); got != 20*time.Second {
			t.Errorf("10 s at 1 MiB/s and the rest at 5 MiB/s took %s", got)
		}
		edge = time.Now().Add(10 * time.Second)
		b.Limit(func(now time.Time) int64 {
			if now.Before(edge) {
				return mib
			}
			return 0
		})
		if got := took(1 << 40); got != 10*time.Second {
			t.Errorf("a window that ends while one waits: %s", got)
		}
	})
}

func TestBandwidthIsSharedAndLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBandwidth(time.Now)
		b.Limit(func(time.Time) int64 { return mib })
		before := time.Now()
		done := make(chan error)
		for range 3 {
			go func() { done <- b.Wait(t.Context(), 10*mib) }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := time.Since(before).Round(time.Second); got != 30*time.Second {
			t.Errorf("three times 10 MiB took %s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Wait(ctx, mib); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		var none *Bandwidth
		if err := none.Wait(ctx, mib); err != nil {
			t.Error(err)
		}
	})
}

func TestBlobsWaitForBandwidth(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := NewBandwidth(time.Now)
		s, err := Open(t.Context(), Location{Filesystem: &FilesystemLocation{Path: dir}}, Creating, Settings{Uploads: 2, Bandwidth: b, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(t.Context())
		b.Limit(func(time.Time) int64 { return mib })
		before := time.Now()
		if err := s.PutBlob(t.Context(), "p0123456789abcdef", Bytes(make([]byte, 7*mib)), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(before).Round(time.Second); took != 7*time.Second {
			t.Errorf("7 MiB at 1 MiB/s took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.PutBlob(ctx, "p0123456789abcdee", Bytes(make([]byte, 7*mib)), blob.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a blob that was given up: %v", err)
		}
		if s.Written() != 7*mib {
			t.Errorf("%d bytes were stored", s.Written())
		}
	})
}
