// Messages of bench.messages in Go: encoding/json, which reflects, and code as a generator of
// binary code writes it (fastbin's way: the size first, then a buffer of that size is filled).
//
//	go run messages.go line|room MILLISECONDS
//
// A line of output for each: its name, nanoseconds to encode and to decode one, and its bytes.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"syscall"
	"time"
)

type Line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

type Player struct {
	ID    int64   `json:"id"`
	Name  string  `json:"name"`
	X     float64 `json:"x"`
	Y     float64 `json:"y"`
	Items []int64 `json:"items"`
}

type Room struct {
	Name    string   `json:"name"`
	Players []Player `json:"players"`
}

var little = binary.LittleEndian

func putText(b []byte, text string) []byte {
	little.PutUint16(b, uint16(len(text)))
	return b[2+copy(b[2:], text):]
}

func takeText(b []byte) (string, []byte) {
	size := 2 + int(little.Uint16(b))
	return string(b[2:size]), b[size:]
}

func putInt(b []byte, number uint64) []byte {
	little.PutUint64(b, number)
	return b[8:]
}

func (m *Line) Size() int { return 4 + len(m.Name) + len(m.Content) }

func (m *Line) Marshal() []byte {
	data := make([]byte, m.Size())
	putText(putText(data, m.Name), m.Content)
	return data
}

func (m *Line) Unmarshal(b []byte) {
	m.Name, b = takeText(b)
	m.Content, _ = takeText(b)
}

func (m *Room) Size() int {
	size := 4 + len(m.Name)
	for i := range m.Players {
		size += 28 + len(m.Players[i].Name) + 8*len(m.Players[i].Items)
	}
	return size
}

func (m *Room) Marshal() []byte {
	data := make([]byte, m.Size())
	b := putText(data, m.Name)
	little.PutUint16(b, uint16(len(m.Players)))
	b = b[2:]
	for i := range m.Players {
		p := &m.Players[i]
		b = putText(putInt(b, uint64(p.ID)), p.Name)
		b = putInt(putInt(b, math.Float64bits(p.X)), math.Float64bits(p.Y))
		little.PutUint16(b, uint16(len(p.Items)))
		b = b[2:]
		for _, item := range p.Items {
			b = putInt(b, uint64(item))
		}
	}
	return data
}

func (m *Room) Unmarshal(b []byte) {
	m.Name, b = takeText(b)
	m.Players = make([]Player, little.Uint16(b))
	b = b[2:]
	for i := range m.Players {
		p := &m.Players[i]
		p.ID = int64(little.Uint64(b))
		p.Name, b = takeText(b[8:])
		p.X, p.Y = math.Float64frombits(little.Uint64(b)), math.Float64frombits(little.Uint64(b[8:]))
		p.Items = make([]int64, little.Uint16(b[16:]))
		b = b[18:]
		for j := range p.Items {
			p.Items[j] = int64(little.Uint64(b))
			b = b[8:]
		}
	}
}

type message interface {
	Marshal() []byte
	Unmarshal([]byte)
}

func room() *Room {
	r := &Room{Name: "the old mill"}
	for i := 0; i < 20; i++ {
		p := Player{ID: int64(1000 + i), Name: "player " + strconv.Itoa(i)}
		p.X, p.Y = float64(i)+0.25, 100-float64(i)/2
		for j := 0; j < 5; j++ {
			p.Items = append(p.Items, int64(i*10+j))
		}
		r.Players = append(r.Players, p)
	}
	return r
}

func each(limit time.Duration, call func()) float64 {
	count, begun := 0, spent()
	for spent()-begun < limit {
		for i := 0; i < 100; i++ {
			call()
		}
		count += 100
	}
	return float64((spent() - begun).Nanoseconds()) / float64(count)
}

// The CPU of this process, its garbage collector's too.
func spent() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func show(name string, limit time.Duration, encode func() []byte, decode func([]byte)) {
	data := encode()
	fmt.Printf("%s\t%.1f\t%.1f\t%d\n", name, each(limit, func() { encode() }),
		each(limit, func() { decode(data) }), len(data))
}

func main() {
	milliseconds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	limit := time.Duration(milliseconds) * time.Millisecond
	var sent message = &Line{"ann", "hello, everybody: who comes along to the old mill tonight?"}
	empty := func() message { return new(Line) }
	if os.Args[1] == "room" {
		sent, empty = room(), func() message { return new(Room) }
	}
	for _, again := range []message{empty(), empty()} {
		data, _ := json.Marshal(sent)
		json.Unmarshal(data, again)
		if !reflect.DeepEqual(again, sent) {
			panic("JSON is another message")
		}
		again.Unmarshal(sent.Marshal())
		if !reflect.DeepEqual(again, sent) {
			panic("binary is another message")
		}
	}
	show("Go, JSON", limit, func() []byte { data, _ := json.Marshal(sent); return data },
		func(data []byte) { json.Unmarshal(data, empty()) })
	show("Go, generated binary", limit, func() []byte { return sent.Marshal() },
		func(data []byte) { empty().Unmarshal(data) })
}
