package image_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

const nextPassword = "battery staple"

func openWith(t *testing.T, where image.Location, word string) error {
	t.Helper()
	r, err := image.Open(t.Context(), where, word, image.Options{WorkDir: t.TempDir()})
	if err != nil {
		return err
	}
	return r.Close(t.Context())
}

// R9: the new password opens everything that the previous one did, which opens nothing any more.
func TestThePasswordIsChanged(t *testing.T) {
	where := directory(t)
	content := random(1, 3*mib)
	backup(t, create(t, where, image.Options{}), "one", disk("d0"), allocated(content))
	opts := image.Options{WorkDir: t.TempDir()}
	if err := image.ChangePassword(t.Context(), where, "a guess", nextPassword, opts); !errors.Is(err, image.ErrWrongPassword) {
		t.Errorf("%v", err)
	}
	for range 2 { // a second time it is done already
		must(t, image.ChangePassword(t.Context(), where, password, nextPassword, opts))
	}
	if err := openWith(t, where, password); !errors.Is(err, image.ErrWrongPassword) {
		t.Errorf("the previous password: %v", err)
	}
	r, err := image.Open(t.Context(), where, nextPassword, image.Options{WorkDir: t.TempDir()})
	must(t, err)
	defer r.Close(context.Background())
	mustRestore(t, r, "one", "d0", content)
	if err := image.ChangePassword(t.Context(), where, nextPassword, "", opts); err == nil {
		t.Error("an empty password is accepted")
	}
	opts.AppendOnly = true
	if err := image.ChangePassword(t.Context(), where, nextPassword, "x", opts); !errors.Is(err, image.ErrAppendOnly) {
		t.Errorf("an agent: %v", err)
	}
}

// R9: kopia writes two blobs. Wherever a change is cut off, the repository opens with one of both passwords or says that it is being changed, and the next
// attempt ends it.
func TestAChangeOfThePasswordMayBeCutOff(t *testing.T) {
	between := 0
	for writes := 0; ; writes++ {
		where := directory(t)
		content := random(1, mib)
		backup(t, create(t, where, image.Options{}), "one", disk("d0"), allocated(content))
		left, cut := writes, false
		dying := &faulty{fail: func(op string, _ blob.ID) error {
			if op == "put" {
				left--
				cut = cut || left < 0
			}
			if cut {
				return errors.New("the process is dead")
			}
			return nil
		}}
		err := image.ChangePassword(t.Context(), where, password, nextPassword, image.WithDecorator(image.Options{WorkDir: t.TempDir()}, dying.wrap))
		if !cut {
			must(t, err)
			break
		}
		old, next := openWith(t, where, password), openWith(t, where, nextPassword)
		if errors.Is(old, image.ErrChanging) {
			between++
		} else if old != nil && next != nil {
			t.Errorf("after %d writes neither opens: %v, %v", writes, old, next)
		}
		must(t, image.ChangePassword(t.Context(), where, password, nextPassword, image.Options{WorkDir: t.TempDir()}))
		must(t, openWith(t, where, nextPassword))
		if err := openWith(t, where, password); !errors.Is(err, image.ErrWrongPassword) {
			t.Errorf("after %d writes: %v", writes, err)
		}
	}
	if between != 1 {
		t.Errorf("the moment between both blobs was met %d times", between)
	}
}

// Who has the repository open goes on: an agent reads what it published anew, and kopia would look at the format after 15 minutes.
func TestARunningBackupOutlivesAChangeOfThePassword(t *testing.T) {
	var c clock
	c.ahead.Add(-int64(2 * time.Hour))
	where := directory(t)
	content := random(1, 2*mib)
	keeper := create(t, where, image.Options{Now: c.now})
	backup(t, keeper, "one", disk("d0"), allocated(content))
	asked := 0
	agent := create(t, where, image.Options{AppendOnly: true, Now: c.now, Passwords: func(context.Context) ([]string, error) {
		asked++
		return []string{nextPassword, password}, nil
	}})
	w, err := agent.Begin(t.Context(), spec("two"))
	must(t, err)
	defer w.Close(t.Context())
	must(t, image.ChangePassword(t.Context(), where, password, nextPassword, image.Options{WorkDir: t.TempDir(), Now: c.now}))
	c.ahead.Add(int64(time.Hour))
	if _, err := w.AddDisk(t.Context(), increment("d0", "one", extent.Extent{Length: 512}), allocated(content), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(t.Context(), open); err != nil || asked != 1 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	if keeper.Unchanged(t.Context()) {
		t.Error("a session that was opened with the previous password passes for up to date")
	}
	mustRestore(t, agent, "two", "d0", content)
	// Both passwords are known while it is changed: it does not matter which is first.
	for _, first := range []string{password, nextPassword} {
		r, err := image.Open(t.Context(), where, first, image.Options{WorkDir: t.TempDir(), Passwords: func(context.Context) ([]string, error) {
			return []string{password, nextPassword}, nil
		}})
		must(t, err)
		must(t, r.Close(t.Context()))
	}
}
