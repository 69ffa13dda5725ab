package hyperv_test

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

const share = `\\nas\vms\data.vhdx`

// onShare is a VM whose second disk lies on a file server.
func onShare(state string) machines {
	return oneVM().with("- path: data.vhdx", "- path: '"+share+"'").with("state: running", "state: "+state)
}

func TestDiskOnAShareIsLeftOutOfTheShadowCopy(t *testing.T) {
	for state, level := range map[string]hyperv.Level{"running": hyperv.Crash, "off": hyperv.Offline} {
		t.Run("of a VM that is "+state, func(t *testing.T) {
			l := newLab(t, onShare(state))
			s, _, approach := l.shadow(false, true)
			l.Expect(approach).To(Equal(hyperv.ShadowApproach{Uninvolved: true, Level: level}), "the writer takes part in all or nothing")
			taken, err := s.Snapshot(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(taken.Level).To(Equal(level))
			c := l.contents(s)
			l.Expect(c.Disks).To(ConsistOf(HaveField("Key", "SCSI-0-0")))
			l.Expect(c.Excluded).To(ConsistOf(And(
				HaveField("Key", "SCSI-0-1"), HaveField("Path", share), HaveField("Reason", hyperv.RemoteDisk), HaveField("Message", ContainSubstring("file server")))), "I9")
			l.Expect(c.Files).To(ContainElement(HaveField("Name", HaveSuffix(".vmcx"))))
		})
	}
}

// The same disk, by the other method.
func TestDiskOnAShareIsLeftOutOfTheCheckpoint(t *testing.T) {
	l := newLab(t, onShare("running"))
	disks, excluded, err := l.Disks(t.Context(), l.mustCheckpoint("task-1", hyperv.Application))
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(disks).To(ConsistOf(HaveField("Key", "SCSI-0-0")))
	l.Expect(excluded).To(ConsistOf(And(HaveField("Key", "SCSI-0-1"), HaveField("Reason", hyperv.RemoteDisk))))
}

func TestGuestIsNotQuiescedForAPartOfItsDisks(t *testing.T) {
	l := newLab(t, onShare("running"))
	s, err := l.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{})
	l.Expect(err).NotTo(HaveOccurred())
	defer s.Close()
	_, err = hyperv.ApplicationShadow(l.vm(crmID), s.Mode())
	l.Expect(err).To(And(MatchError(hyperv.ErrQuiesce), MatchError(ContainSubstring("on no volume of the host"))))
}

// listing is a Volume Shadow Copy Service whose Hyper-V writer lists one more file.
type listing struct {
	vss.Service
	more vss.FileSpec
}

func (s listing) Open(ctx context.Context, kind vss.BackupType) (vss.Requester, error) {
	r, err := s.Service.Open(ctx, kind)
	return listingRequester{r, s.more}, err
}

type listingRequester struct {
	vss.Requester
	more vss.FileSpec
}

func (r listingRequester) Components(ctx context.Context) ([]vss.Component, error) {
	all, err := r.Requester.Components(ctx)
	for i := range all {
		all[i].Files = append(all[i].Files, r.more)
	}
	return all, err
}

func TestConfigurationOnAShareIsRefused(t *testing.T) {
	for pattern, want := range map[string]error{
		"11111111-1111-4111-8111-111111111111.vmcx": hyperv.ErrPath, "11111111-1111-4111-8111-111111111111.VMRS": hyperv.ErrPath, "*.*": hyperv.ErrPath,
		"detached.vhdx": nil, "setup.ISO": nil, // no image has them, or needs them
	} {
		t.Run(pattern, func(t *testing.T) {
			l := newLab(t, oneVM())
			host := hyperv.New(hyperv.Seams{
				Virtualization: l.wire, Disks: l.host.Disks(), Files: l.host.Files(),
				Shadows: listing{l.host.VSS(), vss.FileSpec{Path: `\\nas\vms\crm`, Pattern: pattern}}, Clock: hurried{},
			})
			s, err := host.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{})
			l.Expect(err).NotTo(HaveOccurred())
			defer s.Close()
			_, err = s.Begin(t.Context(), hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash})
			if want == nil {
				l.Expect(err).NotTo(HaveOccurred())
				return
			}
			l.Expect(err).To(And(MatchError(want), MatchError(ContainSubstring(`\\nas\vms\crm`))))
			l.Expect(l.host.ShadowCopies()).To(BeZero())
		})
	}
}
