package runner

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// inventoryRefresh is how long an unchanged inventory may go without being written: its scan time tells people that the agent still looks.
const inventoryRefresh = 5 * time.Minute

// InventoryPublisher looks at the host at intervals and writes what changed into HostInventory objects.
type InventoryPublisher struct {
	Host      *hyperv.Host
	Client    client.Client // uncached
	Namespace string
	Session   string
	Version   string
	Interval  time.Duration
	Clock     clock.Clock

	written []v1alpha1.HostInventoryStatus // the last scan that was written
	at      time.Time                      // and when
}

// Start publishes until ctx ends.
func (p *InventoryPublisher) Start(ctx context.Context) error {
	log := ctrl.LoggerFrom(ctx).WithName("inventory")
	for recalled := false; ; {
		err := p.recall(ctx, &recalled)
		if err == nil {
			err = p.publish(ctx)
		}
		if err != nil && ctx.Err() == nil {
			log.Error(err, "Inventory not published")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.Clock.After(p.Interval):
		}
	}
}

// recall reads what an earlier session published, once: if the host does not answer after a restart, its virtual machines have not vanished.
func (p *InventoryPublisher) recall(ctx context.Context, recalled *bool) error {
	if *recalled {
		return nil
	}
	list := &v1alpha1.HostInventoryList{}
	if err := p.Client.List(ctx, list, client.InNamespace(p.Namespace)); err != nil {
		return fmt.Errorf("list inventories: %w", err)
	}
	p.written = make([]v1alpha1.HostInventoryStatus, len(list.Items))
	for _, item := range list.Items {
		if n := int(item.Status.Part); n < len(p.written) {
			p.written[n] = item.Status
		}
	}
	*recalled = true
	return nil
}

// publish looks once. A host that cannot be looked at is published too: the last facts, and what went wrong.
func (p *InventoryPublisher) publish(ctx context.Context) error {
	inventory, err := p.Host.Inventory(ctx)
	parts := p.parts(inventory)
	if err != nil {
		parts = p.afterFailure(err)
	}
	if sameScan(p.written, parts) && p.Clock.Since(p.at) < inventoryRefresh {
		return nil
	}
	scan, now := uuid.NewString(), metav1.NewTime(p.Clock.Now())
	for i := range parts {
		parts[i].ScanID, parts[i].ScanTime = scan, &now
		if err := p.writePart(ctx, parts[i]); err != nil {
			return err
		}
	}
	p.written, p.at = parts, p.Clock.Now()
	return p.removeBehind(ctx, len(parts))
}

// afterFailure repeats the last scan with the error. Virtual machines of a host that cannot be asked have not vanished.
func (p *InventoryPublisher) afterFailure(err error) []v1alpha1.HostInventoryStatus {
	parts := make([]v1alpha1.HostInventoryStatus, max(1, len(p.written)))
	copy(parts, p.written)
	for i := range parts {
		parts[i].Part, parts[i].Parts, parts[i].SessionID = int32(i), int32(len(parts)), p.Session
		parts[i].Error = cut(fmt.Sprintf("the host cannot be looked at: %v", err), 1024)
	}
	return parts
}

// parts cuts an inventory into pieces that fit into an object each.
func (p *InventoryPublisher) parts(inventory hyperv.Inventory) []v1alpha1.HostInventoryStatus {
	count := max(1, (len(inventory.VMs)+v1alpha1.InventoryPartSize-1)/v1alpha1.InventoryPartSize)
	parts := make([]v1alpha1.HostInventoryStatus, count)
	for i := range parts {
		parts[i].Part, parts[i].Parts, parts[i].SessionID = int32(i), int32(count), p.Session
	}
	parts[0].Host = hostFacts(inventory.Host, p.Version)
	for i, vm := range inventory.VMs {
		part := &parts[i/v1alpha1.InventoryPartSize]
		part.VirtualMachines = append(part.VirtualMachines, virtualMachineFacts(vm))
	}
	return parts
}

func (p *InventoryPublisher) writePart(ctx context.Context, status v1alpha1.HostInventoryStatus) error {
	object := &v1alpha1.HostInventory{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: partName(int(status.Part))}}
	err := p.Client.Get(ctx, client.ObjectKeyFromObject(object), object)
	if apierrors.IsNotFound(err) {
		err = p.Client.Create(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", object.Name, err)
	}
	object.Status = status
	if err := p.Client.Status().Update(ctx, object); err != nil {
		return fmt.Errorf("write %s: %w", object.Name, err)
	}
	return nil
}

// removeBehind deletes the parts of a time when the host had more virtual machines.
func (p *InventoryPublisher) removeBehind(ctx context.Context, parts int) error {
	list := &v1alpha1.HostInventoryList{}
	if err := p.Client.List(ctx, list, client.InNamespace(p.Namespace)); err != nil {
		return fmt.Errorf("list inventories: %w", err)
	}
	for i := range list.Items {
		number, isPart := strings.CutPrefix(list.Items[i].Name, "inventory-")
		if n, err := strconv.Atoi(number); isPart && err == nil && n < parts {
			continue
		}
		if err := p.Client.Delete(ctx, &list.Items[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove %s: %w", list.Items[i].Name, err)
		}
	}
	return nil
}

func partName(part int) string { return "inventory-" + strconv.Itoa(part) }

// sameScan says whether two scans found the same, whenever they looked. Free space moves all the time: it counts by whole GiB.
func sameScan(a, b []v1alpha1.HostInventoryStatus) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i].DeepCopy(), b[i].DeepCopy()
		for _, s := range []*v1alpha1.HostInventoryStatus{x, y} {
			s.ScanID, s.ScanTime = "", nil
			if s.Host != nil {
				for v := range s.Host.Volumes {
					s.Host.Volumes[v].FreeBytes >>= 30
				}
			}
		}
		if !equality.Semantic.DeepEqual(x, y) {
			return false
		}
	}
	return true
}
