do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    set multiplot
    do for [p = 1:n_panels] {
        unset label
        unset arrow
        unset object
        if (p == 1) { do for [line = 1:|$legend|] { eval $legend[line] } }
        eval place(p)
        eval words_at(p)
        set xrange [x_lows[p]:x_highs[p]]
        set yrange [y_lows[p]:y_highs[p]]
        set xtics x_steps[p] offset 0,0.3
        set ytics y_steps[p] offset 0.6,0
        bar = 0.4 * widths[p]
        plot data index sprintf('panel %d', p) using ($1 - bar / 2):2:(bar) with boxes lc rgb '#0072b2' fs solid noborder, \
            data index sprintf('panel %d', p) using ($1 + bar / 2):3:(bar) with boxes lc rgb '#e69f00' fs solid noborder
    }
    unset multiplot
    unset output
}
