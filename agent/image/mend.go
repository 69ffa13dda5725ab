package image

import (
	"context"
	"fmt"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// strayAge is how old a snapshot has to be to be taken for one whose image is gone: its marker is written before it.
const strayAge = 24 * time.Hour

// snapshot is what stock kopia lists and restores, and what keeps the data of the image from being collected.
func (m marker) snapshot() *snapshot.Manifest {
	host := m.VM.Host
	if host == "" {
		host = "unknown"
	}
	saved := &snapshot.Manifest{
		Source:      snapshot.SourceInfo{UserName: kopiaUser, Host: plainName(host), Path: "/" + plainName(m.VM.Name)},
		Description: "Hyperkeep image " + m.ID,
		StartTime:   fs.UTCTimestampFromTime(m.TakenAt),
		EndTime:     fs.UTCTimestampFromTime(m.StoredAt),
		RootEntry:   m.Root,
		Pins:        []string{kopiaUser}, // stock kopia's own retention leaves pinned snapshots alone
		Tags: map[string]string{
			labelImage: m.ID, labelTask: m.TaskUID, labelVM: m.VM.ID, labelVMName: m.VM.Name, labelPolicy: m.Policy, labelDigest: m.Digest,
		},
	}
	if summary := m.Root.DirSummary; summary != nil {
		saved.Stats = snapshot.Stats{TotalFileCount: int32(summary.TotalFileCount), TotalFileSize: summary.TotalFileSize}
	}
	return saved
}

// mend brings the snapshots into line with the markers. An image without its snapshot gets it back, whoever took it away; what kopia then
// collects are only the contents of images that are gone. A snapshot of ours without an image goes, but not while a marker cannot be read: it may be
// that image's, and all that is left of it.
func (r *Repository) mend(ctx context.Context) error {
	if err := r.refresh(ctx); err != nil {
		return err
	}
	images, readable, err := r.session.markers.all(ctx)
	if err != nil {
		return damaged(err, "list images")
	}
	return r.write(ctx, "mend snapshots", func(ctx context.Context, w repo.RepositoryWriter) error {
		found, err := w.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: snapshot.ManifestType})
		if err != nil {
			return err
		}
		of := make(map[object.ID]string, len(images)) // their digests, by their roots
		for _, image := range images {
			of[image.Root.ObjectID] = image.Digest
		}
		seen := map[string]bool{} // by digest
		for _, m := range found {
			if m.Labels[labelImage] == "" {
				continue // somebody else's
			}
			fits, err := fitting(ctx, w, m, of)
			switch {
			case err != nil:
				return err
			case fits != "":
				seen[fits] = true
			case readable && r.opts.Now().Sub(m.ModTime) > strayAge:
				if err := w.DeleteManifest(ctx, m.ID); err != nil {
					return err
				}
			}
		}
		for _, image := range images {
			if seen[image.Digest] {
				continue
			}
			if _, err := snapshot.SaveSnapshot(ctx, w, image.snapshot()); err != nil {
				return fmt.Errorf("bring back the snapshot of image %s: %w", image.ID, err)
			}
		}
		return nil
	})
}

// fitting is the digest of the image that a snapshot is of, empty when it is of none: its labels are not believed.
func fitting(ctx context.Context, w repo.RepositoryWriter, m *manifest.EntryMetadata, digests map[object.ID]string) (string, error) {
	saved, err := snapshot.LoadSnapshot(ctx, w, m.ID)
	if err != nil || saved.RootEntry == nil {
		return "", err
	}
	return digests[saved.RootEntry.ObjectID], nil
}
