package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// Everyone who opens a repository carries the same name, so that maintenance has one fixed owner and a person who connects with stock
// kopia does not run it by accident. That no two processes run it at once is up to the caller of Maintain.
const (
	kopiaUser = "hyperkeep"
	kopiaHost = "repository"
)

// handles passes open storages to kopia, whose library opens repositories only from a configuration file. The file names a handle, so
// that credentials stay in memory. An entry lives only while a repository is being opened.
var handles sync.Map // of string to blob.Storage

const handleType = "hyperkeep"

type handle struct {
	ID string `json:"handle"`
}

func init() {
	blob.AddSupportedStorage(handleType, handle{}, func(_ context.Context, h *handle, _ bool) (blob.Storage, error) {
		st, ok := handles.Load(h.ID)
		if !ok {
			return nil, errors.New("the storage was not opened by this process")
		}
		return st.(blob.Storage), nil
	})
}

// session is one open kopia repository with its storage.
type session struct {
	repo.DirectRepository
	store   *storage.Storage
	markers *markers
	format  formatBlobs // when it was opened
	once    sync.Once
}

type access bool

const (
	readOnly  access = true
	readWrite access = false
)

// openSession opens a repository with nothing cached: neither in memory from an earlier session nor on disk.
func openSession(ctx context.Context, loc Location, password string, opts Options, how access) (*session, error) {
	store, err := storage.Open(ctx, loc, storage.Existing, opts.storage(loc))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(opts.WorkDir, "repository-")
	if err != nil {
		return nil, fmt.Errorf("prepare the working directory: %w", err)
	}
	s := &session{store: store}
	s.format, err = readFormat(ctx, store)
	if err == nil {
		s.DirectRepository, err = openKopia(ctx, pin(store, s.format), dir, password, opts, how)
	}
	// kopia has read what is in it, and a process that is killed later leaves none.
	removed := removeWorkDir(dir)
	if err != nil {
		return nil, errors.Join(openError(unfinished(ctx, store, err)), removed)
	}
	if removed != nil {
		return nil, errors.Join(removed, s.close(ctx))
	}
	if s.markers, err = s.openMarkers(); err != nil {
		return nil, errors.Join(fmt.Errorf("open repository: %w", err), s.close(ctx))
	}
	return s, nil
}

func openKopia(ctx context.Context, store blob.Storage, dir, password string, opts Options, how access) (repo.DirectRepository, error) {
	id := uuid.NewString()
	handles.Store(id, store)
	defer handles.Delete(id)
	config, err := json.Marshal(repo.LocalConfig{
		Storage:       &blob.ConnectionInfo{Type: handleType, Config: handle{ID: id}},
		ClientOptions: repo.ClientOptions{Username: kopiaUser, Hostname: kopiaHost, ReadOnly: bool(how)},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	opened, err := repo.Open(ctx, file, password, &repo.Options{
		TimeNowFunc:          opts.Now,
		DisableRepositoryLog: true,
		DoNotWaitForUpgrade:  true,
		OnFatalError:         func(error) {}, // the operation fails with the same error; kopia's default ends the process
	})
	if err != nil {
		return nil, err
	}
	direct, ok := opened.(repo.DirectRepository)
	if !ok {
		return nil, errors.Join(errors.New("kopia gave no direct access"), opened.Close(ctx))
	}
	return direct, nil
}

func openError(err error) error {
	switch {
	case errors.Is(err, ErrChanging):
		return fmt.Errorf("open repository: %w", err)
	case errors.Is(err, format.ErrInvalidPassword):
		return fmt.Errorf("open repository: %w", ErrWrongPassword)
	case errors.Is(err, blob.ErrBlobNotFound), errors.Is(err, repo.ErrRepositoryNotInitialized):
		return fmt.Errorf("open repository: %w", ErrNoRepository)
	}
	return damaged(err, "open repository")
}

// close gives everything back. A second call does nothing.
func (s *session) close(ctx context.Context) error {
	var err error
	s.once.Do(func() {
		err = s.DirectRepository.Close(context.WithoutCancel(ctx))
	})
	return err
}

// removeWorkDir removes a folder of plain files. os.RemoveAll asks for more than every Windows can do.
func removeWorkDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
	}
	if err = errors.Join(err, os.Remove(dir)); err != nil {
		return fmt.Errorf("remove the working directory: %w", err)
	}
	return nil
}
