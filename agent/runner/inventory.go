package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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

// lookLimit is how long a look at the host may take: Hyper-V's management, or a provider of WMI, may hang for good, and what hangs is given up. A host with a
// thousand virtual machines is looked at in a fraction of it.
const lookLimit = 10 * time.Minute

// errNoAnswer is why a look at the host ended without a result.
var errNoAnswer = errors.New("it does not answer; look whether the services vmms and Winmgmt of the host hang, and restart the one that does")

// settling is how long a change may be followed by others before it is looked at: one thing that people do is several events.
const settling = 500 * time.Millisecond

// InventoryPublisher writes what is on the host into HostInventory objects: what changed as soon as the host tells, and all of it at intervals.
type InventoryPublisher struct {
	Host      *hyperv.Host
	Client    client.Client // uncached
	Namespace string
	Session   string
	Version   string
	// Resync is how often all is looked at while the host tells what changed, Interval how often while it does not.
	Resync, Interval time.Duration
	// Within is how often the host compares its objects to tell what changed.
	Within time.Duration
	// Limit is how long one look may take.
	Limit time.Duration
	Clock clock.Clock

	known   hyperv.Inventory // the last look that worked
	looked  bool             // there was one
	written parts            // what was written last
	at      time.Time        // and when
	tidied  bool             // there are no other parts
}

// Start publishes until ctx ends.
func (p *InventoryPublisher) Start(ctx context.Context) error {
	log := ctrl.LoggerFrom(ctx).WithName("inventory")
	events := &hostEvents{host: p.Host, clock: p.Clock, within: p.Within, interval: p.Interval, C: make(chan hostEvent)}
	var following sync.WaitGroup
	following.Go(func() { events.run(ctx, log) })
	defer following.Wait()
	due := hostEvent{all: true}
	for recalled := false; ; {
		err := p.recall(ctx, &recalled)
		if err == nil {
			err = p.publish(ctx, due)
		}
		if err != nil && ctx.Err() == nil {
			log.Error(err, "Inventory not published")
		}
		if due = events.wait(ctx, p.pause(err)); ctx.Err() != nil {
			return nil
		}
	}
}

// pause is how long to wait for an event before all is looked at: not long after something went wrong.
func (p *InventoryPublisher) pause(err error) func(telling bool) time.Duration {
	return func(telling bool) time.Duration {
		if telling && err == nil && p.looked {
			return p.Resync
		}
		return p.Interval
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
	p.written = make(parts, len(list.Items))
	for _, item := range list.Items {
		if n := int(item.Status.Part); n < len(p.written) {
			p.written[n] = item.Status
		}
	}
	*recalled = true
	return nil
}

// publish looks at what is due and writes the parts that are not as they were. A host that cannot be looked at is published too: the last facts, and what went
// wrong.
func (p *InventoryPublisher) publish(ctx context.Context, due hostEvent) error {
	next, err := p.look(ctx, due)
	var layout parts
	if err == nil {
		p.known, p.looked = next, true
		layout = p.written.put(next, p.Session, p.Version)
	} else {
		p.looked = false
		layout = p.written.withError(cut(fmt.Sprintf("the host cannot be looked at: %v", err), 1024), p.Session)
	}
	changed := p.written.changed(layout)
	if p.Clock.Since(p.at) >= inventoryRefresh && !slices.Contains(changed, 0) {
		changed = append([]int{0}, changed...) // whose time is the scan's
	}
	return p.write(ctx, layout, changed)
}

// look is at all, or at the machines that changed since the last look. It ends when its time is over, whatever the host does.
func (p *InventoryPublisher) look(ctx context.Context, due hostEvent) (found hyperv.Inventory, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, p.Limit, errNoAnswer)
	defer cancel()
	if due.all || !p.looked {
		found, err = p.Host.Inventory(limited)
	} else {
		found, err = p.Host.Refresh(limited, p.known, slices.Sorted(maps.Keys(due.changed)))
	}
	return found, causeOf(limited, err)
}

// write writes parts. Until all are written, what they were counts as unwritten: the next publish writes them again.
func (p *InventoryPublisher) write(ctx context.Context, layout parts, changed []int) error {
	if len(changed) == 0 {
		return nil
	}
	now := metav1.NewTime(p.Clock.Now())
	p.tidied = p.tidied && len(layout) >= len(p.written)
	before := p.written
	p.written = make(parts, len(layout))
	copy(p.written, before)
	for _, n := range changed {
		layout[n].ScanTime = &now
		if err := p.writePart(ctx, layout[n]); err != nil {
			p.written[n] = v1alpha1.HostInventoryStatus{} // nobody knows what is there
			return err
		}
		p.written[n] = layout[n]
	}
	if changed[0] == 0 {
		p.at = now.Time
	}
	if p.tidied {
		return nil
	}
	err := p.removeBehind(ctx, len(layout))
	p.tidied = err == nil
	return err
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

// sameScan says whether two parts say the same, whenever they were written. Free space moves all the time: it counts by whole GiB.
func sameScan(a, b v1alpha1.HostInventoryStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, s := range []*v1alpha1.HostInventoryStatus{x, y} {
		s.ScanTime = nil
		if s.Host != nil {
			for v := range s.Host.Volumes {
				s.Host.Volumes[v].FreeBytes >>= 30
			}
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}
